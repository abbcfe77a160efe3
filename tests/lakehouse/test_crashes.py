"""A process that dies between any two steps of the commit protocol: the next one ends in the same rows."""

import threading

import pytest

from lakehouse.ports import Step
from tests.lakehouse.frames import CONTRACTS, clicks, frame, telemetry
from tests.lakehouse.world import World

TELEMETRY, CLICKS = CONTRACTS["telemetry"], CONTRACTS["clicks"]
BAD_SEQ = 7


class Crash(Exception):  # noqa: N818 - it stands for the end of a process and not for an error
    """Ends a process where it stands."""


class DieAt:
    """A fault that ends the process the n-th time it reaches a step; then every further step of it fails too."""

    def __init__(self, step: Step, times: int = 1) -> None:
        self._step, self._left = step, times
        self._lock = threading.Lock()
        self.died = False

    def __call__(self, step: Step, table: str = "") -> None:
        with self._lock:
            if step is self._step:
                self._left -= 1
            self.died = self.died or self._left <= 0
            if self.died:
                raise Crash(f"after {step} {table}")


def send(world: World) -> None:
    rows = telemetry(range(20))
    rows[BAD_SEQ] = rows[BAD_SEQ] | {"f1": 1_000_000}
    world.broker.batch("device-1", frame(TELEMETRY, rows, span=25))
    world.broker.batch("collector-1", frame(CLICKS, clicks(range(8))))
    world.broker.batch("device-2", b"not a batch")


def check(world: World) -> None:
    assert [r["seq"] for r in world.records("telemetry")] == [seq for seq in range(20) if seq != BAD_SEQ]
    assert [r["seq"] for r in world.records("clicks")] == list(range(8))
    assert [(r["seq"], r["rule"], r["contract"]) for r in world.records("quarantine")] == [
        (BAD_SEQ, "f1.maximum", "telemetry")
    ]
    marks = world.broker.watermarks()
    assert (marks["device-1", "telemetry"].upto, marks["collector-1", "clicks"].upto) == (25, 8)
    assert {letter.reason for letter in world.broker.dead()} == {"truncated_batch"}


# The first receipts of a table are those of the start itself, when it has a state; here none has.
STEPS = [(step, times) for step in Step for times in (1, 2)]
ONCE = {Step.QUARANTINE_HANDED_OVER, Step.PLANNED, Step.FILES_WRITTEN}  # reached once by what is sent here


@pytest.mark.parametrize(("step", "times"), STEPS, ids=lambda value: getattr(value, "value", str(value)))
def test_a_crash_after_any_step_loses_and_doubles_nothing(world: World, step: Step, times: int) -> None:
    fault = DieAt(step, times)
    send(world)
    if step in ONCE and times > 1:
        world.start(fault).drain()
    else:
        with pytest.raises(Crash):
            world.start(fault).drain()
    assert fault.died == (step not in ONCE or times == 1)
    world.start().drain()
    check(world)


@pytest.mark.parametrize("step", list(Step), ids=lambda step: step.value)
def test_origins_that_resend_after_a_crash_double_nothing(world: World, step: Step) -> None:
    send(world)
    with pytest.raises(Crash):
        world.start(DieAt(step)).drain()
    send(world)
    world.start().drain()
    check(world)


def test_a_watermark_never_runs_ahead_of_its_snapshot(world: World) -> None:
    for step in Step:
        worker = world.start(DieAt(step))
        send(world)
        with pytest.raises(Crash):
            worker.drain()
        if ("device-1", "telemetry") in world.broker.watermarks():
            assert world.records("telemetry")

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


STEPS = [(step, 1) for step in Step] + [(Step.TABLE_COMMITTED, 2)]


@pytest.mark.parametrize(("step", "times"), STEPS, ids=lambda value: getattr(value, "value", str(value)))
def test_a_crash_after_any_step_loses_and_doubles_nothing(world: World, step: Step, times: int) -> None:
    # The first receipts are those of the start itself.
    fault = DieAt(step, times + 1 if step is Step.RECEIPTS_SENT else times)
    first = world.start(fault)
    send(world)
    with pytest.raises(Crash):
        first.step()
    assert fault.died
    world.drain(world.start())
    check(world)


@pytest.mark.parametrize("step", list(Step), ids=lambda step: step.value)
def test_origins_that_resend_after_a_crash_double_nothing(world: World, step: Step) -> None:
    first = world.start(DieAt(step, 2 if step is Step.RECEIPTS_SENT else 1))
    send(world)
    with pytest.raises(Crash):
        first.step()
    send(world)
    world.drain(world.start())
    check(world)


def test_a_watermark_never_runs_ahead_of_its_snapshot(world: World) -> None:
    for step in (Step.PLANNED, Step.FILES_WRITTEN, Step.QUARANTINE_COMMITTED, Step.TABLES_COMMITTED):
        ingest = world.start(DieAt(step))
        send(world)
        with pytest.raises(Crash):
            ingest.step()
        assert ("device-1", "telemetry") not in world.broker.watermarks()

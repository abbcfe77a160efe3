"""A seed to an outcome: draws the schedule, plays it and judges what came of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from edge_agent import backlog
from edge_agent.core.spool import spool
from tests.sim.faults import Fault, draw
from tests.sim.judge import Verdict, judge
from tests.sim.storm import Storm

# So small that a short run fills many segments, and memory cannot hold them all.
_SMALL: Final = (
    (spool, "SEGMENT_BATCHES", 5),
    (backlog, "LOADED_BATCHES_MAX", 12),
    (backlog, "BACKLOG_BATCHES_MIN", 4),
)


class Outcome(Struct, frozen=True):
    """What became of one schedule. `converged_s` is the simulated time from the end of its storm to its end."""

    seed: int
    events: int
    faults: dict[str, int]
    starts: int
    published: int
    resent: int
    repeats: int
    lost: int
    doubled: int
    accounted_lost: int
    converged_s: float
    ended_s: float
    took_s: float
    failure: str | None
    story: tuple[tuple[float, str], ...] = ()

    def briefly(self) -> "Outcome":
        """Return it without its story."""
        return replace(self, story=())


@contextmanager
def small() -> Iterator[None]:
    """Give the agent small segments and lanes, so that few events are a backlog."""
    before = [(module, name, getattr(module, name)) for module, name, _ in _SMALL]
    for module, name, value in _SMALL:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def play(seed: int) -> Outcome:
    """Play a seed's schedule; whatever goes wrong is in the outcome, with the story of what happened."""
    storm = Storm(draw(seed))
    begun_s = time.perf_counter()
    verdict, failure = Verdict(0, 0, 0, ()), None
    published = resent = 0
    try:
        with small():
            report = storm.play()
        verdict = judge(storm, report)
        published, resent = report.batches_published, report.resends
        if not verdict.holds:
            failure = "; ".join((*verdict.wrong, f"{verdict.lost} lost, {verdict.doubled} doubled"))
    except Exception as error:  # noqa: BLE001 - whatever ends an agent is this seed's failure, and others go on
        failure = f"{type(error).__name__}: {error}"
    return Outcome(
        seed=seed,
        events=len(storm.lines) + storm.schedule.pushed,
        faults={fault.name: storm.struck[fault] for fault in Fault if storm.struck[fault]},
        starts=storm.starts,
        published=published,
        resent=resent,
        repeats=storm.lake.doubled,
        lost=verdict.lost,
        doubled=verdict.doubled,
        accounted_lost=verdict.accounted_lost,
        converged_s=max(0.0, storm.now_s - storm.schedule.storm_s),
        ended_s=storm.now_s,
        took_s=time.perf_counter() - begun_s,
        failure=failure,
        story=tuple(storm.story),
    )

"""Schedules of faults around the real agent in a simulated world, many of them: what is lost, and what is doubled.

`tests/sim` holds the world, its faults and its judge; a seed decides one schedule, `make sim SEED=...` plays it alone.
"""

import logging
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")  # no display: it writes files only
from matplotlib import pyplot as plt

from benchmarks.result import RESULTS_DIR, Figures, Result, result
from tests.sim.faults import Fault
from tests.sim.play import Outcome, play

SCHEDULES: Final = 10_000
PROCESSES: Final = 2
CHUNK: Final = 25  # schedules that a process is given at once, some three seconds of work
TOLD_EVERY: Final = 500  # schedules
FAILURES_TOLD_MAX: Final = 20
SIZE_INCHES: Final = (15.0, 9.0)
DOTS_PER_INCH: Final = 90


def run(tell: Callable[[str], None]) -> Result:
    """Play every schedule and add them up."""
    begun_s = time.monotonic()
    outcomes = _play_all(range(SCHEDULES), tell)
    draw(RESULTS_DIR / "edge-sim.png", outcomes)
    return sum_up(outcomes, time.monotonic() - begun_s)


def sum_up(outcomes: Sequence[Outcome], took_s: float) -> Result:
    """Return the figures of schedules that were played. A schedule failed if anything did not hold, or never ended."""
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    converged_s = sorted(outcome.converged_s for outcome in outcomes if outcome.failure is None)
    figures: Figures = {
        "sim_schedules": len(outcomes),
        "sim_lost": sum(outcome.lost for outcome in outcomes),
        "sim_doubled": sum(outcome.doubled for outcome in outcomes),
        "sim_failed": len(failed),
        "sim_events": sum(outcome.events for outcome in outcomes),
        "sim_faults": sum(sum(outcome.faults.values()) for outcome in outcomes),
        "sim_accounted_lost": sum(outcome.accounted_lost for outcome in outcomes),
        "sim_converged_p50_s": _percentile(converged_s, 0.5),
        "sim_converged_max_s": _percentile(converged_s, 1.0),
        "sim_took_s": round(took_s, 1),
    }
    return result("edge-sim", _how(outcomes, failed), figures)


def draw(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the picture: how many faults schedules had, how long the agent took after them, which faults they were."""
    figure, axes = plt.subplot_mosaic([["faults", "struck"], ["converged", "struck"]], figsize=SIZE_INCHES)
    counts = [sum(outcome.faults.values()) for outcome in outcomes]
    axes["faults"].hist(counts, bins=range(max(counts, default=0) + 2))
    axes["faults"].set(title="schedules by number of faults", xlabel="faults", ylabel="schedules")
    axes["converged"].hist([outcome.converged_s for outcome in outcomes], bins=60, log=True)
    axes["converged"].set(
        title="schedules by time from the end of the storm to nothing owed", xlabel="simulated s", ylabel="schedules"
    )
    schedules = _schedules_by_fault(outcomes)
    names = sorted(Fault, key=lambda fault: schedules[fault.name])
    axes["struck"].barh([fault.value for fault in names], [schedules[fault.name] for fault in names])
    axes["struck"].set(title="schedules in which a fault struck", xlabel="schedules")
    axes["struck"].tick_params(axis="y", labelsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)


def _play_all(seeds: Iterable[int], tell: Callable[[str], None]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    failures = 0
    # Spawned: a fork would take over this process's threads and what it has imported.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context, initializer=_quiet) as pool:
        for outcome in pool.map(_play_briefly, seeds, chunksize=CHUNK):
            outcomes.append(outcome)
            if outcome.failure is not None:
                failures += 1
                if failures <= FAILURES_TOLD_MAX:
                    tell(f"seed {outcome.seed}: {outcome.failure}: make sim SEED={outcome.seed}")
            if len(outcomes) % TOLD_EVERY == 0:
                tell(f"{len(outcomes)} schedules, {failures} failed")
    return outcomes


def _play_briefly(seed: int) -> Outcome:
    outcome = play(seed)
    return outcome.briefly() if outcome.failure is None else outcome


def _quiet() -> None:
    logging.disable(logging.CRITICAL)  # what thousands of agents have to say


def _how(outcomes: Sequence[Outcome], failed: Sequence[Outcome]) -> dict[str, Any]:
    struck: Counter[str] = Counter()
    for outcome in outcomes:
        struck.update(outcome.faults)
    schedules = _schedules_by_fault(outcomes)
    return {
        "what": "the agent's loop, intake, spool and uplink as they are; clock, disk, link, broker, gateway, log and "
        "lake, and an app that hands events over, are simulated; seeds from 0 on, each draws its events, pace, ring, "
        "faults and their moments",
        "ends": "after each storm the agent is started once more in peace and has to find everything done",
        "judged": "rows, windows and refused lines of the lake against what was offered, one by one; the lake's ledger "
        "against the device's; every number explained once; no file left",
        "lost": "without an entry in the ledger; accounted_lost have one: stored records that rotted",
        "faults": {fault.value: {"struck": struck[fault.name], "schedules": schedules[fault.name]} for fault in Fault},
        "agent_starts": sum(outcome.starts for outcome in outcomes),
        "repeats_settled": sum(outcome.repeats for outcome in outcomes),
        "processes": PROCESSES,
        "failed_seeds": {str(outcome.seed): outcome.failure for outcome in failed[:FAILURES_TOLD_MAX]},
    }


def _schedules_by_fault(outcomes: Sequence[Outcome]) -> Counter[str]:
    found: Counter[str] = Counter()
    for outcome in outcomes:
        found.update(outcome.faults.keys())
    return found


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else None

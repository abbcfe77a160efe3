"""`python -m tests.sim`: play schedules; tell what happened in one, or how many of several hold."""

import argparse
import logging
import sys
from collections import Counter
from typing import Final

from tests.sim.faults import Fault, draw
from tests.sim.play import Outcome, play

TOLD_EVERY: Final = 100  # schedules


def main() -> int:
    """Return 0 when every schedule converged with nothing lost and nothing doubled, 1 otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim",
        description="Play schedules of faults around the real agent: simulated clock, disk, broker, gateway and lake.",
        epilog="example: python -m tests.sim --seed 7, then --seed 0 --schedules 500",
    )
    parser.add_argument("--seed", type=int, default=0, help="the first one; it decides everything")
    parser.add_argument("--schedules", type=int, default=1, help="how many, of this seed and those after it")
    arguments = parser.parse_args()
    if arguments.schedules == 1:
        outcome = play(arguments.seed)
        tell(outcome)
        return 1 if outcome.failure else 0
    logging.disable(logging.CRITICAL)  # of so many agents
    outcomes = []
    for seed in range(arguments.seed, arguments.seed + arguments.schedules):
        outcomes.append(play(seed))
        if outcomes[-1].failure:
            print(f"seed {seed}: {outcomes[-1].failure}", flush=True)
        if len(outcomes) % TOLD_EVERY == 0:
            print(f"{len(outcomes)} of {arguments.schedules} schedules", file=sys.stderr, flush=True)
    sum_up(outcomes)
    return 1 if any(outcome.failure for outcome in outcomes) else 0


def tell(outcome: Outcome) -> None:
    """Print one schedule as it went."""
    schedule = draw(outcome.seed)
    pace = f"{schedule.rate_events_per_s:g} a second" if schedule.rate_events_per_s else "as fast as it goes"
    print(f"seed {outcome.seed}: {schedule.events} events, {pace}, and {schedule.pushed} that an app hands over")
    print(f"a storm of {schedule.storm_s:.1f} s")
    for at_s, what in outcome.story:
        print(f"{at_s:10.2f} s  {what}")
    print(f"{outcome.ended_s:10.2f} s  the end")
    sum_up([outcome])
    if outcome.failure:
        print(f"failed: {outcome.failure}")


def sum_up(outcomes: list[Outcome]) -> None:
    """Print the counts of schedules."""
    faults: Counter[str] = Counter()
    schedules: Counter[str] = Counter()
    for outcome in outcomes:
        faults.update(outcome.faults)
        schedules.update(outcome.faults.keys())
    for fault in Fault:
        if faults[fault.name]:
            print(f"{faults[fault.name]:8} x in {schedules[fault.name]:6} schedules: {fault.value}")
    starts, repeats = sum(one.starts for one in outcomes), sum(one.repeats for one in outcomes)
    accounted, failed = sum(one.accounted_lost for one in outcomes), sum(one.failure is not None for one in outcomes)
    print(
        f"{len(outcomes)} schedules, {sum(one.events for one in outcomes)} events, {starts} starts, "
        f"{repeats} repeats settled, {accounted} lost with an entry; {sum(one.lost for one in outcomes)} lost without, "
        f"{sum(one.doubled for one in outcomes)} doubled, {failed} failed"
    )


if __name__ == "__main__":
    sys.exit(main())

"""What may go wrong around an agent, and when: a seed draws both, for one schedule.

A schedule draws for itself which faults it knows, so that some worlds suffer from everything and others from one thing
again and again. After its storm nothing goes wrong any more, and the agent has to end with every event explained.
"""

import random
from enum import Enum
from typing import Final

from msgspec import Struct


class Fault(Enum):
    """A fault, by what it looks like from outside."""

    KILL = "the process is killed at any moment"
    KILL_AT_WRITE = "the process is killed in a step of the disk"
    KILL_AT_SEND = "the process is killed right after a publish"
    POWER_CUT = "what was not synced is lost, file by file"
    TORN_WRITE = "a kill left a part of a write"
    DISK_FULL = "the disk is full (ENOSPC)"
    DISK_ERROR = "the disk fails (EIO)"
    ROT = "a bit in a stored record is another"
    CLOCK_FORWARD = "the clock is set forward"
    CLOCK_BACK = "the clock is set back"
    BROKER_WIPED = "the broker restarts and has forgotten everything"
    LINK_CUT = "the link breaks"
    DRAIN_CUT = "the link breaks while a backlog drains"
    HALF_OPEN = "the link is dead and nobody says so"
    OFFLINE = "there is no network"
    REFUSED = "a connection is refused"
    UNHEARD = "the broker has nobody to give a batch to"
    QUOTA = "the broker's quota is exceeded"
    DROPPED = "a batch is acknowledged by PUBACK, and dropped"
    ANSWER_LOST = "a batch arrives and its PUBACK does not"
    DUPLICATE = "the broker delivers a batch twice"
    REORDERED = "a batch is overtaken by later ones"
    GATEWAY_RESTART = "the gateway restarts with batches in its hands"
    LAKE_RESTART = "the lake restarts before its commit, and reads the log again"
    LAKE_STOPS = "the lake commits nothing for a while"
    COMMIT_UNSAID = "the lake commits and says nothing"
    RECEIPT_TWICE = "a receipt arrives twice"
    RECEIPT_OLD = "an older receipt arrives after a newer one"
    APP_UNTOLD = "an app is not told that its events were taken"


STRIKES: Final = (
    Fault.KILL, Fault.KILL_AT_WRITE, Fault.KILL_AT_SEND, Fault.DISK_FULL, Fault.DISK_ERROR, Fault.ROT,
    Fault.CLOCK_FORWARD, Fault.CLOCK_BACK, Fault.BROKER_WIPED, Fault.LINK_CUT, Fault.DRAIN_CUT, Fault.HALF_OPEN,
    Fault.OFFLINE, Fault.GATEWAY_RESTART, Fault.LAKE_STOPS,
)  # fmt: skip
"""Faults that strike at a moment; all others strike a message with a chance, or come of these."""

CHANCES: Final = {
    Fault.REFUSED: 0.2,
    Fault.UNHEARD: 0.04,
    Fault.QUOTA: 0.02,
    Fault.DROPPED: 0.06,
    Fault.ANSWER_LOST: 0.03,
    Fault.DUPLICATE: 0.08,
    Fault.REORDERED: 0.15,
    Fault.LAKE_RESTART: 0.1,
    Fault.COMMIT_UNSAID: 0.2,
    Fault.RECEIPT_TWICE: 0.15,
    Fault.RECEIPT_OLD: 0.15,
    Fault.APP_UNTOLD: 0.3,
}
EVENTS_MAX: Final = 400
PUSHED_MAX: Final = 150
STRIKES_MAX: Final = 20  # per schedule; each may last for seconds
STORM_S_MAX: Final = 90  # s of simulated time


class Schedule(Struct, frozen=True):
    """One world's fortune. `strikes` are faults by simulated second; `chances` those per message.

    `rate_events_per_s` 0 is a source that is read as fast as it goes. `ring_ms` 0 is a device without a ring. An app
    hands over so many events as `pushed` says.
    """

    seed: int
    events: int
    pushed: int
    rate_events_per_s: float
    ring_ms: int
    storm_s: float
    strikes: tuple[tuple[float, Fault], ...]
    chances: dict[Fault, float]


def draw(seed: int) -> Schedule:
    """Return a seed's schedule."""
    rng = random.Random(f"schedule {seed}")
    events = rng.randint(40, EVENTS_MAX)
    # Paced, the storm goes on a while after the last event; at once, the kills have to fall into the drain.
    rate = rng.choice((0.0, 5.0, 10.0, 20.0, 40.0, 80.0))
    storm_s = rng.uniform(2.0, 8.0) if not rate else min(STORM_S_MAX, 1.3 * events / rate + rng.uniform(1.0, 10.0))
    known = [fault for fault in STRIKES if rng.random() < 0.5] or [rng.choice(STRIKES)]
    strikes = sorted(
        (rng.uniform(0.0, storm_s), place, rng.choice(known)) for place in range(rng.randint(1, STRIKES_MAX))
    )
    return Schedule(
        seed=seed,
        events=events,
        pushed=rng.choice((0, rng.randint(1, PUSHED_MAX))),
        rate_events_per_s=rate,
        ring_ms=rng.choice((0, 0, 20_000, 3_600_000)),
        storm_s=storm_s,
        strikes=tuple((at_s, fault) for at_s, _, fault in strikes),
        chances={fault: chance * rng.random() for fault, chance in CHANCES.items() if rng.random() < 0.5},
    )

"""Assertions that an agent is known to fail, each with the reason. One that holds by now must leave the list."""

from typing import Final

_FORGETS: Final = "a PUBACK is taken for delivery: the bridge forgets the message"
_EARLY: Final = "the PUBACK to the producer goes out before the queue is written"
_BRIDGE: Final = {
    "D-001": _EARLY,
    "D-002": _EARLY,
    "D-040": "its pauses are random up to a limit, which is 5 s here",
    "D-042": "its notification is a publish beyond the window",
    "D-050": _FORGETS,
    "D-052": _FORGETS,
    "D-055": _FORGETS,
    "D-059": _FORGETS,
    "D-060": _FORGETS,
    "D-061": _FORGETS,
    "D-070": _FORGETS,
    "D-071": _FORGETS,
    "D-072": _FORGETS,
    "D-074": _FORGETS,
    "D-103": _EARLY,
    "D-105": _EARLY,
    "D-111": _EARLY,
    "D-112": _EARLY,
    "D-113": _EARLY,
    "D-119": "a queue file that cannot be read to its end keeps the broker from starting",
    "D-120": "a queue that is gone is made anew",
    "D-131": _EARLY,
    "D-135": _EARLY,
}
_SLOW: Final = "every change writes the whole queue: so many events are not taken in time"
_UPSTREAM: Final = "the broker upstream queues 1,000 messages for its consumer, drops others and says PUBACK to them"
_SAVES_LATE: Final = "the queue is written every 30 minutes and at a clean end"

KNOWN: Final[dict[str, dict[str, str]]] = {
    "fieldlake": {},
    "mosquitto-bridge": _BRIDGE
    | {
        "D-045": _SLOW,
        "D-107": _SLOW,
        "D-138": "every change writes the whole queue",
        "D-150": _SLOW,
        "D-151": _SLOW,
    },
    "mosquitto-bridge-default": _BRIDGE
    | {
        "D-008": _SAVES_LATE,
        "D-110": _SAVES_LATE,
        "D-111": _SAVES_LATE,
        "D-112": _SAVES_LATE,
        "D-113": _SAVES_LATE,
        "D-114": _SAVES_LATE,
        "D-115": _SAVES_LATE,
        "D-117": _SAVES_LATE,
        "D-119": _SAVES_LATE,
        "D-132": _SAVES_LATE,
        "D-045": _UPSTREAM,
        "D-150": _UPSTREAM,
        "D-165": _UPSTREAM,
    },
}

"""Which request of an object store meets which fault: a seed's decision, by the request's number. Pure."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from random import Random
from typing import Final

from msgspec import Struct


class Fault(Enum):
    """What happens to one request."""

    NONE = "none"
    REFUSED = "500 and nothing was done"
    UNSURE = "500 and it was done"
    SLOW_DOWN = "503 SlowDown and nothing was done"
    LATE = "late"
    RESET = "connection reset after the body, and it was done"
    STALE = "listing of a while ago"


class Rates(Struct, frozen=True):
    """Shares of the requests, `stale` of the listings only; together at most 1."""

    refused: float = 0.01
    unsure: float = 0.01
    slow_down: float = 0.02
    late: float = 0.05
    reset: float = 0.01
    stale: float = 0.5


NO_FAULTS: Final = Rates(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
LISTING: Final = re.compile(r"[?&](list-type=2|prefix=|delimiter=)")
_ENTRY: Final = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)
_MODIFIED: Final = re.compile(rb"<LastModified>([^<]+)</LastModified>")
_COUNT: Final = re.compile(rb"<KeyCount>\d+</KeyCount>")


def drawn(seed: int, number: int, rates: Rates, listing: bool) -> Fault:
    """Return what a seed has decided for the request of this number."""
    at = Random(f"{seed}/{number}").random()
    for fault, share in _shares(rates, listing).items():
        at -= share
        if at < 0:
            return fault
    return Fault.NONE


def is_listing(method: str, path: str) -> bool:
    """Say whether a request asks for the names of objects; `path` with its query."""
    return method == "GET" and LISTING.search(path) is not None


def without_newest(listing: bytes, now_s: float, age_s: float) -> bytes:
    """Return a listing as it was so many seconds ago, as far as its own times tell: without what came since.

    An entry whose time cannot be read stays.
    """

    def is_old(entry: bytes) -> bool:
        found = _MODIFIED.search(entry)
        if found is None:
            return True
        moment = datetime.fromisoformat(found[1].decode().replace("Z", "+00:00"))
        return now_s - (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() > age_s

    kept = 0

    def keep(match: re.Match[bytes]) -> bytes:
        nonlocal kept
        if not is_old(match[0]):
            return b""
        kept += 1
        return match[0]

    shorter = _ENTRY.sub(keep, listing)
    return _COUNT.sub(b"<KeyCount>%d</KeyCount>" % kept, shorter)


def _shares(rates: Rates, listing: bool) -> Mapping[Fault, float]:
    return {
        Fault.REFUSED: rates.refused,
        Fault.UNSURE: rates.unsure,
        Fault.SLOW_DOWN: rates.slow_down,
        Fault.LATE: rates.late,
        Fault.RESET: rates.reset,
        Fault.STALE: rates.stale if listing else 0.0,
    }

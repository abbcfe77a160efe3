"""Wait for a condition with a deadline, never for a time."""

import threading
from collections.abc import Callable
from time import monotonic
from typing import Final, TypeVar

DEADLINE_S: Final = 120.0  # s; everything takes a few, the rest is room for a busy machine
PROBE_EVERY_S: Final = 0.02

Found = TypeVar("Found")


def eventually(
    probe: Callable[[], Found | None], what: str | Callable[[], str], deadline_s: float = DEADLINE_S
) -> Found:
    """Return the probe's first result that is neither None nor False; fail when the deadline passes.

    `what` is what was waited for; a function tells it when the wait has failed, with what was found until then.
    """
    until, pause = monotonic() + deadline_s, threading.Event()
    while monotonic() < until:
        found = probe()
        if found is not None and found is not False:
            return found
        pause.wait(PROBE_EVERY_S)
    raise AssertionError(f"not within {deadline_s:.0f} s: {what if isinstance(what, str) else what()}")

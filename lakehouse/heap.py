"""Giving memory that is free back to the system, around the rare work that needs much of it at once.

The C library keeps what is freed for the next round (docs/decisions/0020-two-cores.md). Putting a million streams in
order needs 150 MB for a second, which finds no room between what is kept, and so came on top of it.
"""

import ctypes
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

# Streams in order; putting so many in order takes half a second, of which giving back is a tenth.
STREAMS_MIN: Final = 262_144

_log = logging.getLogger(__name__)


@contextmanager
def tidied(streams: int) -> Iterator[None]:
    """Give free memory back before and after putting so many streams in order, when they are many."""
    if streams < STREAMS_MIN:
        yield
        return
    _trim()(0)
    yield
    _trim()(0)


@cache
def _trim() -> Callable[[int], object]:
    """Return glibc's `malloc_trim`; with another C library nothing is given back, which it does by itself."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except AttributeError:
        _log.info("the C library has no malloc_trim: free memory is given back as it sees fit")
        return lambda _keep_bytes: None

"""Open windows without their values: what a spool record says of them, enough to fill them again after a restart."""

import zlib
from typing import Protocol

import msgspec
from msgspec import Struct

from contracts.bundle import Windows


class Counted(Protocol):
    """Events as numbers: the first and last of their numbers, how many they are, and how many were kept as rows."""

    @property
    def first_seq(self) -> int: ...
    @property
    def last_seq(self) -> int: ...
    @property
    def kept(self) -> int: ...
    @property
    def count(self) -> int: ...


class WindowMark(Struct, frozen=True, array_like=True):
    """An open window, or pane of windows.

    `plan` says which of the stream's windows it belongs to, see `plan_key`. `factor` is how much coarser it is than
    planned. `extent_us` is a session's time from its first to its last event, 0 for others.
    """

    subject: str
    start_us: int
    first_seq: int
    last_seq: int
    kept: int
    count: int
    plan: int = 0
    factor: int = 1
    extent_us: int = 0

    @property
    def end_us(self) -> int:
        """Time of a session's last event."""
        return self.start_us + self.extent_us


def plan_key(plan: Windows) -> int:
    """Return 32 bits that stand for what decides which events are in a window; what rows say of it is not part."""
    parts = (plan.contract, plan.kind, plan.window_ms, plan.slide_ms, plan.gap_ms, plan.sensors)
    return zlib.crc32(msgspec.json.encode(parts))


def joined(held: WindowMark, more: Counted, extent_us: int = 0) -> WindowMark:
    """Return the mark of both together, at the place of the first."""
    return WindowMark(
        held.subject,
        held.start_us,
        min(held.first_seq, more.first_seq),
        max(held.last_seq, more.last_seq),
        held.kept + more.kept,
        held.count + more.count,
        held.plan,
        held.factor,
        extent_us,
    )

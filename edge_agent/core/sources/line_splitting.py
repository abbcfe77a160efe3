"""Blocks of bytes to lines, whatever the blocks' borders."""

from typing import Final

from edge_agent.core.refusal import EVENT_BYTES_MAX

KEPT_BYTES: Final = EVENT_BYTES_MAX + 1  # bytes kept of a longer line: enough to see that it is too long


class LineSplitter:
    """Cuts at each newline. A line that is too long for an event is one event all the same, cut to `KEPT_BYTES`."""

    def __init__(self) -> None:
        self._rest = b""
        self._has_rest = False

    @property
    def rest_bytes(self) -> int | None:
        """How many bytes came after the last newline; None when they are more than were kept."""
        return len(self._rest) if len(self._rest) < KEPT_BYTES else None

    def feed(self, block: bytes) -> list[bytes]:
        """Return the lines that this block completes."""
        first, *more = block.split(b"\n")
        self._rest = (self._rest + first)[:KEPT_BYTES]
        self._has_rest = self._has_rest or bool(block)
        if not more:
            return []
        *whole, last = more
        lines = [self._rest, *(whole if len(block) <= KEPT_BYTES else [line[:KEPT_BYTES] for line in whole])]
        self._rest, self._has_rest = last[:KEPT_BYTES], bool(last)
        return lines

    def finish(self) -> list[bytes]:
        """Return the last line if it had no newline, and begin anew."""
        lines = [self._rest] if self._has_rest else []
        self._rest, self._has_rest = b"", False
        return lines

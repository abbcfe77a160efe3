"""The windows of one stream, for devices without numpy: the same rows, no sketch."""

from collections.abc import Iterable, Sequence
from typing import Final

from contracts import bundle
from edge_agent.core.windows.held import ClosedWindow
from edge_agent.core.windows.marks import WindowMark
from edge_agent.core.windows.open_windows import Limits, StreamWindows
from edge_agent.lite.aggregates import of_plan
from edge_agent.lite.parts import Part, Readings, by_subject, parts_of

# 1 MB of the process's 24 holds some 13,000 events of nine sensors, and a start reads few events again.
LITE_LIMITS: Final = Limits(size_bytes=1_048_576, span_rows=100_000)


class Windows(StreamWindows[Part]):
    """The open windows of one stream, see `StreamWindows`."""

    def __init__(
        self, plans: Sequence[bundle.Windows], marks: Iterable[WindowMark] = (), limits: Limits | None = None
    ) -> None:
        super().__init__(plans, marks, of_plan, limits or LITE_LIMITS)
        self._columns = [self._places(plan) for plan in self._plans]

    def refill(self, readings: Readings) -> None:
        """Put values back into windows whose marks were restored; events of windows closed since are passed over."""
        if readings.seqs:
            self._open.refill(self._parts(readings))

    def add(self, readings: Readings) -> list[ClosedWindow]:
        """Take in events; return the windows that closed. The columns of `values` are `sensors`."""
        if not readings.seqs:
            return []
        return self._open.take(self._parts(readings), readings.seqs[-1])

    def _parts(self, readings: Readings) -> Iterable[Iterable[Part]]:
        events = by_subject(readings)
        return [parts_of(events, plan, places) for plan, places in zip(self._plans, self._columns, strict=True)]

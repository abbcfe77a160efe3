"""The windows of one stream, for devices with numpy. When they close: `edge_agent.core.windows.open_windows`."""

from collections.abc import Iterable, Sequence

from contracts import bundle
from edge_agent.core.windows.aggregates import of_plan
from edge_agent.core.windows.held import ClosedWindow
from edge_agent.core.windows.marks import WindowMark
from edge_agent.core.windows.open_windows import Limits, StreamWindows
from edge_agent.core.windows.parts import Ordered, Part, Readings


class Windows(StreamWindows[Part]):
    """The open windows of one stream, see `StreamWindows`."""

    def __init__(
        self, plans: Sequence[bundle.Windows], marks: Iterable[WindowMark] = (), limits: Limits | None = None
    ) -> None:
        super().__init__(plans, marks, of_plan, limits or Limits())
        self._columns = [None if plan.sensors == self.sensors else self._places(plan) for plan in self._plans]

    def refill(self, readings: Readings) -> None:
        """Put values back into windows whose marks were restored; events of windows closed since are passed over."""
        if len(readings.seqs):
            self._open.refill(self._parts(readings))

    def add(self, readings: Readings) -> list[ClosedWindow]:
        """Take in events; return the windows that closed. The columns of `values` are `sensors`."""
        if not len(readings.seqs):
            return []
        return self._open.take(self._parts(readings), int(readings.seqs[-1]))

    def _parts(self, readings: Readings) -> Iterable[list[Part]]:
        ordered = Ordered(readings)
        return (ordered.parts(plan, places) for plan, places in zip(self._plans, self._columns, strict=True))

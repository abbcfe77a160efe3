"""The windows of one stream, for devices with numpy. When they close: `edge_agent.core.open_windows`."""

from collections.abc import Iterable, Sequence

from contracts import bundle
from edge_agent.core.aggregates import of_plan
from edge_agent.core.held import ClosedWindow
from edge_agent.core.marks import WindowMark
from edge_agent.core.open_windows import Limits, OpenWindows
from edge_agent.core.parts import Ordered, Part, Readings


class Windows:
    """The open windows of one stream.

    `marks` are what was open when an earlier process ended; those that none of the plans owns any more are `orphans`,
    whose events the caller must account for.
    """

    def __init__(
        self, plans: Sequence[bundle.Windows], marks: Iterable[WindowMark] = (), limits: Limits | None = None
    ) -> None:
        self._plans = tuple(plans)
        self.sensors = tuple(dict.fromkeys(sensor for plan in plans for sensor in plan.sensors))
        self._places = [
            None if plan.sensors == self.sensors else [self.sensors.index(sensor) for sensor in plan.sensors]
            for plan in self._plans
        ]
        self._open: OpenWindows[Part] = OpenWindows(self._plans, marks, of_plan, limits or Limits())
        self.orphans = self._open.orphans
        self.resume_seq = self._open.resume_seq
        self.is_whole = self._open.is_whole
        self.forgo = self._open.forgo
        self.coarsen = self._open.coarsen
        self.close_all = self._open.close_all

    @property
    def marks(self) -> tuple[WindowMark, ...]:
        """What is open."""
        return self._open.marks

    @property
    def size_bytes(self) -> int:
        """What the values of all that is open take."""
        return self._open.size_bytes

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
        return (ordered.parts(plan, places) for plan, places in zip(self._plans, self._places, strict=True))

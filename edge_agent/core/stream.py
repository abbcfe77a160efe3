"""One stream of a device: lines are checked, filtered and counted in windows, once per flush."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Final

from msgspec import Struct

from contracts.bundle import Windows as WindowsPlan
from contracts.contract import Contract
from contracts.ledger import Fate
from contracts.offshoots import SOURCE_SEQ
from contracts.sampling import DROPPED_SAMPLE, seed_of
from edge_agent.core.accounts import DISK_FULL, Count, Explained
from edge_agent.core.events import Checked, Column, Events, Mask, Reader, Refused, json_bytes
from edge_agent.core.profile import EventFilter, Profile, Verdict
from edge_agent.core.spool.pressure import Step
from edge_agent.core.windows.held import ClosedWindow
from edge_agent.core.windows.marks import WindowMark
from edge_agent.core.windows.window_rows import rows_of

IDLE_MS: Final = 120_000  # ms; the windows of a stream that has gone quiet close, and let go of their segments


class StreamPlan(Struct, frozen=True):
    """What the bundle says about one stream. A share of the events that do not travel does so as rows of `sampled`.

    `stores` says that events which do not travel stay on the device a while. What is asked for later goes as rows of
    `pulled`.

    A stream with windows stores them in any case: a restart fills the open windows from there. One that `sheds` gives
    its events up when the disk is full.
    """

    source: Contract
    filter: EventFilter
    windows: tuple[WindowsPlan, ...] = ()
    windows_contracts: tuple[Contract, ...] = ()
    sampled: Contract | None = None
    sample_ratio: float = 0.0
    lax: bool = False
    stores: bool = False
    sheds: bool = False
    pulled: Contract | None = None


class Taken(Struct, frozen=True):
    """What one flush found in a stream: it accounts for the events [first_seq, first_seq + observed).

    `columns` are those of the `kept` events; `rest` are valid events that do not travel, where the stream stores them:
    those that windows count, and those that they do not.
    `window_rows` are columns of closed windows, by their contract, `sample_rows` of the
    sample of what does not travel, None when there are none. `times_us` is the first and last event
    time of all valid events.
    """

    first_seq: int
    observed: int
    explained: Explained
    kept: Events
    columns: dict[str, Column]
    rest: tuple[tuple[Events, bool], ...]
    window_rows: tuple[tuple[Contract, dict[str, Column]], ...]
    sample_rows: dict[str, Column] | None
    refused: tuple[Refused, ...]
    kept_json_bytes: int
    observed_json_bytes: int
    times_us: tuple[int, int] | None


class Stream:
    """Holds a stream's next number and its open windows."""

    def __init__(
        self, plan: StreamPlan, profile: Profile, device: str, epoch: int, next_seq: int, marks: Iterable[WindowMark]
    ) -> None:
        self.plan = plan
        self._profile = profile
        self.next_seq = next_seq
        self._device = device
        self._sample_seed = seed_of(device, epoch, plan.source.id, DROPPED_SAMPLE)
        self._reader = Reader(plan.source, profile, lax=plan.lax)
        self._windows = profile.windows(plan.windows, marks) if plan.windows else None
        self._newest_ms: int | None = None  # when the newest events came, while windows are open
        self.decide: Callable[[Events], Verdict] = plan.filter.decide  # whoever compares two bundles stands between

    @property
    def resume_seq(self) -> int:
        """Number of the first event that a restart must see again; up to `next_seq` it only refills windows."""
        return self._windows.resume_seq(self.next_seq) if self._windows is not None else self.next_seq

    @property
    def marks(self) -> tuple[WindowMark, ...]:
        """The open windows."""
        return self._windows.marks if self._windows is not None else ()

    def refill(self, events: Events, kept: Mask, windowed: Mask) -> None:
        """Put events that an earlier process accounted for back into windows and rules; they come in their order."""
        self.plan.filter.refill(events, kept)
        if self._windows is not None:
            self._windows.refill(self._readings(events, kept, windowed))

    def coarsen(self, factor: int) -> None:
        """Let windows that open from now on be so many times as long as planned."""
        if self._windows is not None:
            self._windows.coarsen(factor)

    def forgo(self) -> int:
        """Go on without events that windows cannot be refilled with; return how many are gone that never travelled.

        Those of windows that the bundle no longer has are among them.
        """
        if self._windows is None:
            return 0
        orphans = sum(mark.count - mark.kept for mark in self._windows.orphans)
        return self._windows.forgo() + orphans

    def close_except(self, plans: Collection[WindowsPlan]) -> tuple[tuple[Contract, dict[str, Column]], ...]:
        """Close what is open in other plans than these; return the rows by their contract."""
        closed = self._windows.close_except(plans) if self._windows is not None else []
        return tuple(self._window_rows(closed))

    def succeed(self, before: "Stream") -> None:
        """Go on where the same stream of another bundle stands, between two chunks.

        Windows that both plan stay open as they are; others of that bundle must be closed. What rules remember is for
        whoever made this stream's filter: it must know what has travelled.
        """
        self.next_seq, self._newest_ms = before.next_seq, before._newest_ms
        if self._windows is not None and before._windows is not None:
            self._windows.take_over(before._windows)

    def read(self, first_seq: int, lines: Sequence[bytes]) -> Checked:
        """Check lines against the stream's contract, and do nothing else with them."""
        return self._reader.read(first_seq, lines)

    def is_refilled(self) -> bool:
        """Say whether the open windows hold again what they held when the last group became durable."""
        return self._windows is None or self._windows.is_whole()

    def is_idle(self, now_ms: int) -> bool:
        """Say whether windows are open and nothing has come for so long that nobody should wait for them."""
        # A clock that was set back must not keep them open until it has caught up.
        return self._newest_ms is not None and abs(now_ms - self._newest_ms) > IDLE_MS

    def take(self, lines: Sequence[bytes], *, final: bool, now_ms: int, step: Step = Step.NONE) -> Taken:
        """Account for the stream's next lines, of which there may be none.

        `final` closes all windows. So does a disk on which time is short: open windows hold on to the segments that
        they would be filled from. On a full one the lines are dropped unread if the stream allows it.
        """
        if step >= Step.DROP and self.plan.sheds:
            return self.drop(len(lines), sum(map(len, lines)), "", DISK_FULL)
        if lines:
            self._newest_ms = now_ms
        first_seq = self.next_seq
        checked = self._reader.read(first_seq, lines)
        verdict = self.decide(checked.events)
        closed: list[ClosedWindow] = []
        if self._windows is not None:
            closed = self._windows.add(self._readings(checked.events, verdict.keep, verdict.windowed))
            closed.extend(self._windows.close_all() if final or step >= Step.SLOW else ())
        if not self.marks:
            self._newest_ms = None
        kept = self._profile.select(checked.events, verdict.keep)
        self.next_seq = first_seq + len(lines)
        return Taken(
            first_seq=first_seq,
            observed=len(lines),
            explained=self._explained(first_seq, len(lines), verdict, checked.refused),
            kept=kept,
            columns=self.plan.filter.fill(kept.columns, verdict),
            rest=tuple(self._rest(checked.events, verdict)),
            window_rows=tuple(self._window_rows(closed)),
            sample_rows=self._sample_rows(checked.events, verdict),
            refused=checked.refused,
            kept_json_bytes=json_bytes(kept),
            observed_json_bytes=sum(map(len, lines)) + len(lines),
            times_us=self._times_us(checked.events),
        )

    def forget(self) -> None:
        """Let rules begin anew that remember events: they let through what they may have dropped, never the reverse."""
        self.plan.filter.forget()

    def drop(self, events: int, size_bytes: int, rule: str, reason: str) -> Taken:
        """Account for the stream's next events without a look at them."""
        first_seq, source = self.next_seq, self.plan.source
        self.next_seq = first_seq + events
        nothing = self._reader.read(first_seq, ()).events
        closed = self._windows.close_all() if self._windows is not None else []
        dropped = Count(source.id, Fate.DROPPED.value, rule, reason, events)
        return Taken(
            first_seq=first_seq,
            observed=events,
            explained=Explained(first_seq, self.next_seq, (dropped,)).counted(),
            kept=nothing,
            columns=nothing.columns,
            rest=(),
            window_rows=tuple(self._window_rows(closed)),
            sample_rows=None,
            refused=(),
            kept_json_bytes=0,
            observed_json_bytes=size_bytes + events,
            times_us=None,
        )

    def _rest(self, events: Events, verdict: Verdict) -> Iterator[tuple[Events, bool]]:
        profile, windowed = self._profile, verdict.windowed
        if self._windows is not None or self.plan.stores:
            yield profile.select(events, profile.without(windowed, verdict.keep)), True
        if self.plan.stores:
            yield profile.select(events, profile.neither(verdict.keep, windowed)), False

    def _sample_rows(self, events: Events, verdict: Verdict) -> dict[str, Column] | None:
        profile = self._profile
        if self.plan.sampled is None or not self.plan.sample_ratio:
            return None
        taken = profile.without(profile.sampled(events.seqs, self._sample_seed, self.plan.sample_ratio), verdict.keep)
        if not profile.count(taken):
            return None
        outcomes = [verdict.outcomes[code] for code in profile.picked(verdict.codes, taken)]
        chosen = profile.select(events, taken)
        return {
            **chosen.columns,
            SOURCE_SEQ: chosen.seqs,
            "dropped_by": [outcome.rule for outcome in outcomes],
            "dropped_because": [outcome.reason for outcome in outcomes],
        }

    def _times_us(self, events: Events) -> tuple[int, int] | None:
        field = self.plan.source.event_time_field
        if field is None or not len(events) or not self.plan.source.field(field).required:
            return None
        return self._profile.bounds(events.columns[field])

    def _explained(self, first_seq: int, observed: int, verdict: Verdict, refused: tuple[Refused, ...]) -> Explained:
        """Return one count per fate, rule and reason of the range [first_seq, first_seq + observed)."""
        source = self.plan.source
        found: list[tuple[Fate, int, str, str]] = [(Fate.KEPT, self._profile.count(verdict.keep), "", "")]
        for outcome, count in verdict.refusals():
            counted = self._windows is not None and outcome.windowed
            found.append((Fate.AGGREGATED if counted else Fate.DROPPED, count, outcome.rule, outcome.reason))
        codes: dict[str, int] = {}
        for entry in refused:
            codes[entry.code] = codes.get(entry.code, 0) + 1
        rule = f"{source.id}@{source.version}"
        found.extend((Fate.DROPPED, count, rule, code) for code, count in sorted(codes.items()))
        counts = (Count(source.id, fate.value, rule, reason, count) for fate, count, rule, reason in found)
        return Explained(first_seq, first_seq + observed, tuple(counts)).counted()

    def _readings(self, events: Events, kept: Mask, windowed: Mask) -> Any:
        profile, source = self._profile, self.plan.source
        events, kept = profile.select(events, windowed), profile.picked(kept, windowed)
        assert self._windows is not None
        assert source.event_time_field is not None
        subjects = (
            list(events.columns[source.subject_field])
            if source.subject_field is not None
            else [self._device] * len(events)
        )
        times = events.columns[source.event_time_field]
        return profile.readings(events, subjects, times, self._windows.sensors, kept)

    def _window_rows(self, closed: list[ClosedWindow]) -> Iterator[tuple[Contract, dict[str, Column]]]:
        for contract in self.plan.windows_contracts:
            if mine := [window for window in closed if window.plan.contract == contract.id]:
                yield contract, dict(rows_of(mine, contract))

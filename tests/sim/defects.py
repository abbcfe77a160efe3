"""Defects that somebody might put into the agent or the lake, and how to put them there."""

from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

import pytest

from contracts import microbatch, ranges
from contracts.contract import fingerprint
from edge_agent.core.intake import Intake
from edge_agent.core.sources.producers import Producers
from edge_agent.core.spool import recovery
from edge_agent.core.spool.recovery import Recovered
from edge_agent.core.spool.segment import Segment
from edge_agent.core.uplink.link import Answered
from edge_agent.core.uplink.owed import Owed
from edge_agent.core.uplink.sending import SendWindow
from edge_agent.courier import Courier
from edge_agent.ports import PushSource
from edge_agent.reception import Reception
from tests.edge_agent.plant import CONTRACTS, Lake
from tests.edge_agent.simulated import Lines
from tests.sim.disk import TroubledDisk

Patch = pytest.MonkeyPatch


def _free_on_puback(patch: Patch) -> None:
    real = Courier._answered

    def answered(self: Courier, event: Answered) -> None:
        sending = self.window._sendings.get(self._messages.get(event.message, -1))
        real(self, event)
        if event.code == 0 and sending is not None:
            batch = sending.batch
            held = self._committed.get(batch.contract, ())
            self._committed[batch.contract] = ranges.add(held, batch.first_seq, batch.end_seq)
            self.window.commit(self._committed)

    patch.setattr(Courier, "_answered", answered)


def _forget_what_was_in_flight(patch: Patch) -> None:
    def link_lost(self: SendWindow) -> None:
        self._outstanding.clear()
        self._backlog_outstanding.clear()

    patch.setattr(SendWindow, "link_lost", link_lost)


def _take_twice(patch: Patch) -> None:
    names = {fingerprint(contract): name for name, contract in CONTRACTS.items()}

    def take(self: Lake, data: bytes) -> None:
        header, _ = microbatch.parse(data)
        key = names[header.fingerprint], header.epoch
        self._committed[key] = ranges.add(self._committed.get(key, ()), header.first_seq, header.end_seq)
        self.batches.append((key[0], header, data))

    patch.setattr(Lake, "take", take)


def _forget_owed_entries(patch: Patch) -> None:
    real = Owed.__init__
    patch.setattr(Owed, "__init__", lambda self, _explained: real(self, ()))


def _number_anew(patch: Patch) -> None:
    real = Lines.skip

    def skip(self: Lines, events: int) -> int:
        real(self, max(0, events - 1))
        return events

    patch.setattr(Lines, "skip", skip)


def _free_what_is_held_in_part(patch: Patch) -> None:
    def is_held(self: Segment, committed: dict[str, ranges.RangeSet]) -> bool:
        return any(committed.get(contract) for contract in self.ranges)

    patch.setattr(Segment, "is_held", is_held)


def _never_settle(patch: Patch) -> None:
    patch.setattr(Courier, "damages_due", lambda _self, _now_s: ())


def _forget_deleted_sums(patch: Patch) -> None:
    real = recovery.recover

    def recover(disk: Any, names: list[str]) -> Recovered:
        return real(disk, [name for name in names if name != recovery.CURSOR_FILE])

    patch.setattr("edge_agent.core.spool.identity.recover", recover)


def _tell_too_early(patch: Patch) -> None:
    real = Reception.take

    def take(self: Reception) -> dict[str, list[bytes]]:
        lines = real(self)
        self.settle()
        return lines

    patch.setattr(Reception, "take", take)


def _forget_producers(patch: Patch) -> None:
    real = Reception.__init__

    def begin(self: Reception, sources: Iterable[PushSource], contracts: Collection[str], _known: Producers) -> None:
        real(self, sources, contracts, Producers())

    patch.setattr(Reception, "__init__", begin)


DEFECTS: Final[dict[str, Callable[[Patch], None]]] = {
    "a PUBACK frees": _free_on_puback,
    "what was in flight when the link broke is not sent again": _forget_what_was_in_flight,
    "nothing is sent again when no receipt comes": lambda patch: patch.setattr(SendWindow, "tick", lambda *_: None),
    "the lake takes what it has": _take_twice,
    "a restart forgets the entries that it owes": _forget_owed_entries,
    "a restart reads its last event twice": _number_anew,
    "a segment goes when a part of it is in the lake": _free_what_is_held_in_part,
    "open windows are not filled again": lambda patch: patch.setattr(Intake, "refill", lambda *_: None),
    "damage is found and never accounted for": _never_settle,
    "what is appended is never synced": lambda patch: patch.setattr(TroubledDisk, "sync", lambda *_: None),
    "an app is told before its events are durable": _tell_too_early,
    "a restart forgets which of an app's events it has": _forget_producers,
    "a start does without what deleted segments amounted to": _forget_deleted_sums,
}

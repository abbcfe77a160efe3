"""The devices of the chaos benchmark: what they say they have sent is what a log that loses a lot ends up with."""

from pathlib import Path
from random import Random

import pytest

from benchmarks.lake import resend, workload
from benchmarks.lake.resend import EPOCH, Devices, Headers, Job
from contracts import contract, microbatch, ranges, topics
from contracts.contract import fingerprint
from contracts.errors import OperatorMustActError
from contracts.ranges import RangeSet

CHOSEN = (workload.readings("chaos_field"), workload.readings("chaos_behaviour", "lake_b", "behaviour"))
IDS = {fingerprint(one): one.id for one in CHOSEN}


class LossyLake:
    """A log and the watermarks behind it: a share of the messages is lost, or refused because the queue is full."""

    def __init__(self, lost: float) -> None:
        self._lost, self._rng = lost, Random(3)
        self._held: dict[tuple[str, str, int], RangeSet] = {}
        self.first_of: list[tuple[str, int, int]] = []

    def produce(self, topic: str, value: bytes, key: str, headers: Headers) -> None:
        assert (topic, headers) == (topics.BATCHES, [(topics.ORIGIN_HEADER, key.encode())])
        header, _ = microbatch.parse(value)
        draw = self._rng.random()
        if draw < self._lost / 2:
            raise BufferError("queue full")
        self.first_of.append((key, header.first_seq, header.span))
        if draw >= self._lost:
            at = (key, IDS[header.fingerprint], header.epoch)
            self._held[at] = ranges.add(self._held.get(at, ()), header.first_seq, header.end_seq)

    def poll(self, _timeout_s: float, /) -> int:
        return 0

    def held(self) -> dict[tuple[str, str, int], RangeSet]:
        return dict(self._held)


def job(folder: Path, drain_within_s: float = 30.0) -> Job:
    documents = tuple(contract.encode(one) for one in CHOSEN)
    return Job("nowhere", documents, 3, 400.0, 5, 1, str(folder / "stop"), drain_within_s)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resend, "RESEND_EVERY_S", 0.02)
    monkeypatch.setattr(resend, "RESEND_AFTER_S", 0.05)
    monkeypatch.setattr(resend, "HELD_BACK_MAX_S", 0.1)


class StopsAfter:
    """Marks that end the flow once enough has been acknowledged."""

    def __init__(self, lake: LossyLake, stop: Path, events: int) -> None:
        self._lake, self._stop, self._events = lake, stop, events

    def held(self) -> dict[tuple[str, str, int], RangeSet]:
        found = self._lake.held()
        if sum(ranges.size(held) for held in found.values()) >= self._events:
            self._stop.touch()
        return found


def test_everything_made_is_there_at_the_end_whatever_was_lost(tmp_path: Path) -> None:
    lake = LossyLake(0.4)
    ledger = Devices(job(tmp_path), StopsAfter(lake, tmp_path / "stop", 4_000), lake).run()
    for chosen in CHOSEN:
        for (origin, epoch), sent in ledger.sent(chosen.id).items():
            assert (epoch, lake.held()[origin, chosen.id, EPOCH]) == (EPOCH, sent)
    assert sum(sum(events.values()) for events in ledger.events.values()) == ledger.batches * 5 >= 4_000
    assert min(ledger.resent, ledger.doubled, ledger.held_back, ledger.recut) > 0
    spans = {span for _, _, span in lake.first_of}
    assert spans == {5, 10}
    in_order = sorted(lake.first_of, key=lambda one: (one[0], one[1]))
    assert in_order != lake.first_of


def test_what_never_arrives_is_named(tmp_path: Path) -> None:
    lake = LossyLake(1.0)
    devices = Devices(job(tmp_path, 0.3), StopsAfter(lake, tmp_path / "stop", 0), lake)
    with pytest.raises(OperatorMustActError, match=r"not covered by watermarks: .*chaos-chaos-field-0"):
        devices.run()

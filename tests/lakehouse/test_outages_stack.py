"""A store without room, a store that is down, and a catalog that is: over the real ones."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic

import pytest

from tests.lakehouse import judge
from tests.lakehouse.frames import CONTRACTS, clicks, frame, telemetry
from tests.lakehouse.plant import Plant, Service
from tests.waiting import eventually

pytestmark = pytest.mark.stack

ROWS = 10
CATALOG_DOWN_S = 60.0
KINDS = {"telemetry": telemetry, "clicks": clicks}


class Sender:
    """One origin of each contract, by the name of the test."""

    def __init__(self, plant: Plant, name: str) -> None:
        self.plant, self.name = plant, name
        self.sent = dict.fromkeys(KINDS, 0)

    def send(self) -> None:
        for contract, make in KINDS.items():
            at = self.sent[contract]
            self.plant.send(self._origin(contract), [frame(CONTRACTS[contract], make(range(at, at + ROWS)))])
            self.sent[contract] = at + ROWS

    def upto(self, contract: str) -> int:
        mark = self.plant.watermarks().get((self._origin(contract), contract))
        return mark.upto if mark is not None else 0

    def await_all(self, *kinds: str) -> None:
        for contract in kinds or KINDS:
            probe = partial(self._is_acknowledged, contract)
            eventually(probe, f"watermark of {contract} at {self.sent[contract]}")

    def _is_acknowledged(self, contract: str) -> bool:
        return self.upto(contract) == self.sent[contract]

    def judge(self) -> None:
        """DuckDB sees each row that was sent, once."""
        for contract, sent in self.sent.items():
            own = f"origin = '{self._origin(contract)}'"
            query = f"SELECT count(*), count(DISTINCT seq), max(seq) FROM rows WHERE {own}"
            assert judge.read(self.plant.config, CONTRACTS[contract], query) == [(sent, sent, sent - 1)]

    def _origin(self, contract: str) -> str:
        return f"{self.name}-{contract}"


@contextmanager
def no_room(pid: int) -> Iterator[None]:
    """Let a process fail to write any byte to a file, as a full disk does."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def test_a_store_without_room_is_named_and_holds_up_its_own_tables_only(plant: Plant, ingest: Service) -> None:
    ingest.start()
    sender = Sender(plant, "room")
    sender.send()
    sender.await_all()
    with no_room(plant.store_b.pid):
        sender.send()
        ingest.await_status(lambda status: "clicks" in status.parked, "the table of the full store is named")
        sender.send()
        sender.await_all("telemetry")
        assert sender.upto("clicks") == ROWS
    sender.await_all()
    ingest.await_status(lambda status: not status.parked, "nothing is left alone")
    sender.judge()


def test_a_store_that_is_down_is_named_while_the_other_goes_on(plant: Plant, ingest: Service) -> None:
    ingest.start()
    sender = Sender(plant, "down")
    sender.send()
    sender.await_all()
    plant.store_b.kill()
    sender.send()
    ingest.await_status(lambda status: "clicks" in status.parked, "the table of the store that is down is named")
    sender.send()
    sender.await_all("telemetry")
    assert sender.upto("clicks") == ROWS
    plant.store_b.start()
    sender.await_all()
    sender.judge()


def test_a_catalog_that_is_away_for_a_minute_is_named_and_waited_out(plant: Plant, ingest: Service) -> None:
    ingest.start()
    sender = Sender(plant, "catalog")
    sender.send()
    sender.await_all()
    plant.database.kill()
    until_s = monotonic() + CATALOG_DOWN_S
    sender.send()
    ingest.await_status(lambda status: "catalog" in status.last_error, "the catalog is named")

    def goes_on() -> bool:
        sender.send()
        return monotonic() >= until_s

    eventually(goes_on, "the outage is over")
    plant.database.start()
    sender.await_all()
    sender.judge()

"""A store without room, a store that is down, and a catalog that is: over the real ones."""

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import count
from time import monotonic

import pytest

from infra.launcher.logs import last_error_line
from tests.lakehouse import judge
from tests.lakehouse.frames import CONTRACTS, clicks, frame, telemetry
from tests.lakehouse.plant import Plant, Service
from tests.processes import Daemon
from tests.waiting import eventually

pytestmark = pytest.mark.stack

ROWS = 10
CATALOG_DOWN_S = 60.0
KINDS = {"telemetry": telemetry, "clicks": clicks}
CLICKS_TABLE = CONTRACTS["clicks"].table
CATALOGS = tuple(f"catalog {CONTRACTS[name].catalog}:" for name in KINDS)
NUMBERS = count(1)  # an origin's name is short, so the names of tests are not for it


class Sender:
    """One origin of each contract, whose names begin alike."""

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
def no_room(store: Daemon) -> Iterator[None]:
    """Let a process fail to write any byte to a file, as a full disk does."""
    before = resource.prlimit(store.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(store.pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(store.pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def away(daemon: Daemon) -> Iterator[None]:
    """Let a process be gone, as after a power cut."""
    daemon.kill()
    try:
        yield
    finally:
        daemon.start()


@pytest.fixture
def sender(plant: Plant, ingest: Service) -> Sender:
    """Origins of the test's own over an ingest that runs; what they have sent so far is acknowledged."""
    ingest.start()
    made = Sender(plant, f"outage-{next(NUMBERS)}")
    made.send()
    made.await_all()
    return made


def await_logged(ingest: Service, name: str) -> None:
    """Wait until the last error in the log of the process, which the status of the stack shows, names something."""
    eventually(
        lambda: name in (last_error_line(ingest.log_file) or ""), f"{name} in the last error of {ingest.log_file}"
    )


@pytest.mark.parametrize("trouble", [no_room, away])
def test_a_store_in_trouble_is_named_and_holds_up_its_own_tables_only(
    plant: Plant, ingest: Service, sender: Sender, trouble: Callable[[Daemon], AbstractContextManager[None]]
) -> None:
    with trouble(plant.store_b):
        sender.send()
        status = ingest.await_status(lambda status: "clicks" in status.parked, "the table of the store is named")
        assert CLICKS_TABLE in status.parked["clicks"]
        assert {CONTRACTS[name].catalog for name in status.parked} == {CONTRACTS["clicks"].catalog}
        await_logged(ingest, CLICKS_TABLE)
        sender.send()
        sender.await_all("telemetry")
        assert sender.upto("clicks") == ROWS
    sender.await_all()
    ingest.await_status(lambda status: not status.parked, "nothing is left alone")
    sender.judge()


def test_a_catalog_that_is_away_for_a_minute_is_named_and_waited_out(
    plant: Plant, ingest: Service, sender: Sender
) -> None:
    with away(plant.database):
        until_s = monotonic() + CATALOG_DOWN_S
        sender.send()
        # By its name at the front: that catalog and store should be looked after is said of every outage.
        ingest.await_status(lambda status: status.last_error.startswith(CATALOGS), "the catalog is named")
        await_logged(ingest, "catalog lake_")

        def goes_on() -> bool:
            sender.send()
            assert [sender.upto(contract) for contract in KINDS] == [ROWS] * len(KINDS)
            return monotonic() >= until_s

        eventually(goes_on, "the outage is over")
    sender.await_all()
    sender.judge()

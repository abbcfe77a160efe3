"""One worker without threads: its writer and its committer step by turns."""

from collections.abc import Callable
from itertools import count

from contracts.errors import OutcomeUnknownError, RetrySafeError
from contracts.topics import CONTRACTS
from lakehouse.committer import Committer
from lakehouse.contract_feed import ContractFeed
from lakehouse.ports import Fault, Lake, no_fault
from lakehouse.status import IngestStatus
from lakehouse.writer import Writer
from tests.lakehouse.memory import Broker, ManualClock, MemoryLog
from tests.lakehouse.memory_lake import Inline

QUIET_STEPS = 12  # steps of both halves without anything new after which a worker has nothing left to do
INTERVAL_MS = 250


class Pair:
    """A worker over a log in memory."""

    numbers = count(1)

    def __init__(
        self, broker: Broker, clock: ManualClock, lake: Lake, fault: Fault = no_fault, name: str = "ingest-1"
    ) -> None:
        self.broker, self.clock, self._lake = broker, clock, lake
        self.status = IngestStatus(pid=0)
        self.errors: list[Exception] = []
        log = MemoryLog(broker, clock)
        feeds = [ContractFeed(log.follow(CONTRACTS), self.errors.append) for _ in ("writer", "committer")]
        arguments = (clock, INTERVAL_MS, Inline(), self.status, fault)
        self.writer = Writer(name, log, lake, feeds[0], *arguments, token=lambda: str(next(self.numbers)))
        self.committer = Committer(log, lake, feeds[1], *arguments)

    def step(self) -> bool:
        """Step both halves; say whether either did anything."""
        wrote = self._patient(self.writer.step)
        return self._patient(self.committer.step) or wrote

    def drain(self) -> int:
        """Step until nothing is left; return the number of rounds and commits together."""
        did, quiet = 0, 0
        while quiet < QUIET_STEPS:
            if self.step():
                did, quiet = did + 1, 0
            else:
                quiet += 1
        return did

    def expire(self) -> None:
        """Lose both shares without hearing of it."""
        self.writer._share.expire()  # type: ignore[attr-defined]
        self.committer._share.expire()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Leave the groups."""
        self.writer.close()
        self.committer.close()

    def _patient(self, step: Callable[[], bool]) -> bool:
        """As `run` does, without the pause."""
        try:
            return step()
        except (RetrySafeError, OutcomeUnknownError) as error:
            self.errors.append(error)
            half = self.writer if step == self.writer.step else self.committer
            half._begun = False
            self.clock.advance(0.2)
            return False

"""A consent desk on a disk in memory, asked directly."""

import random

from edge_agent.core.sources.admissions import Admissions
from edge_agent.core.sources.offers import Offered, Settled, Wish
from edge_agent.core.sources.producers import Producers
from tests.edge_agent.consenting import (
    VISITS,
    desk_of,
    line_of,
    visit,
)
from tests.edge_agent.worlds import MemoryDisk

PERSON = "林-7f3a"


class Ground:
    """Clock and randomness of a desk, and the desk."""

    def __init__(self, disk: MemoryDisk | None = None) -> None:
        self.rng = random.Random(7)
        self.disk = disk if disk is not None else MemoryDisk()
        self.desk, self.keys = desk_of(self.disk, self)
        self.admissions = Admissions(Producers())

    def now_ms(self) -> int:
        return 1_800_000_000_000

    def monotonic_s(self) -> float:
        return 5.0

    def take(self, lines: list[bytes], first: int | None = None) -> Settled:
        producer = "app" if first is not None else None
        self.desk.take(Offered("apps", 1, VISITS.id, tuple(lines), producer, first), self.admissions)
        (answer,) = self.admissions.written()
        return answer.settled

    def decide(self, wish: Wish, person: str = PERSON) -> Settled:
        return self.desk.decide(person, wish, self.admissions)


def lines_of(*seqs: int, person: str = PERSON) -> list[bytes]:
    return [line_of(visit(seq, person)) for seq in seqs]

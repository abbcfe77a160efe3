"""A simulated world for whole agents: disk, clock, broker and lake; a seed drives what goes wrong in it."""

import heapq
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts import watermark
from contracts.bundle import Model
from edge_agent.adapters.cipher import KEY_BYTES, LibraryCipher
from edge_agent.agent import Agent, Settings
from edge_agent.app import resume
from edge_agent.config import ProfileName
from edge_agent.core.arrays import ARRAYS
from edge_agent.core.filter.filtering import Filter
from edge_agent.core.intake import Intake
from edge_agent.core.plan import Plan
from edge_agent.core.sources.producers import Producers
from edge_agent.core.spool.identity import FORMAT, Identity, open_spool
from edge_agent.core.spool.retention import Retention
from edge_agent.core.spool.spool import Spool
from edge_agent.core.stream import StreamPlan
from edge_agent.core.uplink.link import AckArrived, Answered, LinkDown, LinkEvent, LinkUp, Subscribed
from edge_agent.feeds import Feed, Feeds
from edge_agent.lite.filtering import LiteFilter
from edge_agent.lite.lists import LISTS
from edge_agent.ports import PushSource
from edge_agent.reception import Reception
from edge_agent.report import Report
from tests.edge_agent.plant import CONTRACTS, SENSORS, Lake, bundle_of, reading
from tests.edge_agent.worlds import Crash, MemoryDisk

DEVICE = "device"
WANTED = Identity(DEVICE, 1, {"telemetry": 1}, FORMAT)
MODEL = Model("sim", "1", "m.onnx", "", SENSORS, 60.0, 8)


class SumScorer:
    """Scores by the first sensor alone."""

    def scores(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return rows[:, 0]


def first_column(rows: Sequence[Sequence[float]]) -> list[float]:
    """Score as `SumScorer` does, without numpy."""
    return [row[0] for row in rows]


def plan_of(epoch: int, profile: ProfileName = "full") -> Plan:
    """Return a plan with filter and windows."""
    is_lite = profile == "lite"
    stream = StreamPlan(
        source=CONTRACTS["telemetry"],
        filter=LiteFilter(MODEL, first_column) if is_lite else Filter(MODEL, SumScorer()),
        windows=bundle_of().stream("telemetry").windows,
        windows_contracts=(CONTRACTS["telemetry_windows"],),
    )
    return Plan(DEVICE, 0, epoch, CONTRACTS["ledger"], CONTRACTS["quarantine"], (stream,), LISTS if is_lite else ARRAYS)


class Lines:
    """A source in memory, handed out in uneven parts; one that is followed has no end."""

    def __init__(self, lines: list[bytes], rng: random.Random, *, followed: bool = False) -> None:
        self._lines = lines
        self._at = 0
        self._rng = rng
        self._followed = followed
        self.at_end = False

    def read(self, events_max: int) -> list[bytes]:
        part = self._lines[self._at : self._at + min(events_max, self._rng.randint(1, 60))]
        self._at += len(part)
        self.at_end = self._at == len(self._lines) and not self._followed
        return part

    def skip(self, events: int) -> int:
        self._at = min(len(self._lines), self._at + events)
        return self._at

    def close(self) -> None:
        return


class World:
    """Clock, inbox and uplink in one; a broker that forgets, answers late and breaks links; a lake behind it."""

    def __init__(self, seed: int, lines: list[bytes], events_per_s: float = 0.0) -> None:
        self.rng = random.Random(seed)
        self.lines = lines
        self.events_per_s = events_per_s
        self.offline = False
        self.runs = 0
        self.crash_at_s: float | None = None
        self.retention = Retention()
        self.ends_drained = True
        self.pushing: tuple[PushSource, ...] = ()
        self.pushed: tuple[str, ...] = ()  # contracts of theirs
        self.plan = plan_of(0)
        self.on_status: Callable[[Report], None] = lambda _report: None
        self.disk = MemoryDisk(rng=self.rng)
        self.lake = Lake(DEVICE)
        self.now_s = 0.0
        self.faults = True
        self.link = 0
        self._up = False
        self._coming: list[tuple[float, int, Callable[[], LinkEvent | None]]] = []
        self._order = 0
        self._message = 0

    def now_ms(self) -> int:
        return 1_800_000_000_000 + int(self.now_s * 1_000)

    def monotonic_s(self) -> float:
        return self.now_s

    def take(self, wait_s: float) -> list[LinkEvent]:
        until = self.now_s + wait_s
        events: list[LinkEvent] = []
        while self._coming and (self._coming[0][0] <= self.now_s or (not events and self._coming[0][0] <= until)):
            when, _, happen = heapq.heappop(self._coming)
            self.now_s = max(self.now_s, when)
            event = happen()
            if event is not None:
                events.append(event)
        if not events:
            self.now_s = max(self.now_s, until) + 0.001
        return events

    def connect(self, epoch: int) -> None:
        self.link += 1
        link = self.link
        if self.offline or self._chance(0.2):
            self._later(lambda: LinkDown(link, "no broker"))
            return
        self._up = True
        self._later(lambda: LinkUp(link, 20, None), 0.05)
        self._later(lambda: Subscribed(link, 1), 0.1)
        self._later(lambda: self._retained(link), 0.2)

    def publish(self, batch: bytes) -> int | None:
        if not self._up:
            return None
        self._message += 1
        link, message = self.link, self._message
        if self._chance(0.02):
            self._up = False
            self._later(lambda: LinkDown(link, "broken"))
            return message
        code = 0x10 if self._chance(0.05) else 0
        lost = self._chance(0.05)  # acknowledged, and dropped
        self._later(lambda: Answered(link, message, code))
        if code == 0 and not lost:
            self._later(lambda: self._commit(batch), 2.0)
        return message

    def request_certificate(self, request: bytes) -> None:
        return

    def drop(self) -> None:
        self._up = False

    def close(self, epoch: int) -> None:
        self._up = False

    def run(self) -> Report:
        """Start an agent and run it to its end; a crash raises Crash."""
        return self.start().run()

    def start(self, *, followed: bool = False) -> Agent:
        """Return an agent over what the disk holds."""
        self.runs += 1
        spool = self.spool()
        intake = Intake(msgspec.structs.replace(self.plan, epoch=spool.epoch), spool.recovered.newest)
        source = Lines(self.lines, self.rng, followed=followed)
        resume(intake, spool, {"telemetry": source}, self.now_ms())
        feeds = Feeds((Feed("telemetry", source, self.events_per_s, 0.2),))
        settings = Settings(DEVICE, until_drained=not followed and self.ends_drained)
        newest = spool.recovered.newest
        reception = Reception(self.pushing, self.pushed, newest.producers if newest is not None else Producers())
        return Agent(
            settings, intake, spool, feeds, reception, self, self, self, self.rng.random, lambda: None, self._status
        )  # fmt: skip

    def spool(self) -> Spool:
        """Open what is on the disk."""
        wanted = Identity(DEVICE, self.now_ms() // 1_000, {"telemetry": 1}, FORMAT)
        return open_spool(self.disk, wanted, LibraryCipher(bytes(KEY_BYTES), self.rng.randbytes), self.retention)

    def crash(self) -> None:
        """What a crash leaves: the disk without a part of what was not synced, nothing on the way to the agent."""
        if self.rng.random() < 0.5:
            self.disk.cut_power()
        self.disk.crash_after = self.crash_at_s = None
        self._up = False
        self.link += 1
        # Batches that the broker has may still arrive.

    def _status(self, report: Report) -> None:
        self.last = report
        assert self.now_s < 50_000, f"no progress: {report}"
        if self.crash_at_s is not None and self.now_s >= self.crash_at_s:
            raise Crash
        self.on_status(report)

    def _commit(self, batch: bytes) -> LinkEvent | None:
        self.lake.take(batch)
        return self._retained(self.link)

    def _retained(self, link: int) -> LinkEvent | None:
        if not self._up or link != self.link or self._chance(0.2):
            return None
        return AckArrived(link, watermark.encode(self.lake.ack()))

    def _later(self, happen: Callable[[], LinkEvent | None], most_s: float = 0.5) -> None:
        self._order += 1
        heapq.heappush(self._coming, (self.now_s + self.rng.random() * most_s, self._order, happen))

    def _chance(self, chance: float) -> bool:
        return self.faults and self.rng.random() < chance


def lines_with_faults(rng: random.Random, events: int) -> list[bytes]:
    lines = []
    for seq in range(events):
        changes: dict[str, Any] = {}
        if rng.random() < 0.03:
            changes = rng.choice([{"f2": float("nan")}, {"asset_id": "x" * 65}, {"f9": None}])
        if rng.random() < 0.02:
            changes |= {"occurred_at": "2026-01-01T00:00:00Z"}  # late
        lines.append(b"{not json" if rng.random() < 0.01 else json.dumps(reading(seq, **changes)).encode())
    return lines

"""What a pull costs a device: ten minutes of raw data out of a ring of some hours. A part of the edge's figures.

- Ring: hours of 1,000 readings a second of the shuttle sensor record, a tenth kept, encrypted, in the spool's own form.
  The ten minutes that are asked for went through the agent's intake in flushes of 200; the hours before and after are
  blocks of it under other numbers and times, which a pull passes by and never opens.
- Pull: a running agent, with live readings at 1,000 a second, is asked for all events of these ten minutes. The clock
  stops when the batch with the answer is handed to the uplink, which has every other one by then.
"""

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from contracts import microbatch, pulls, ranges, watermark
from contracts.bundle import Model
from contracts.contract import Contract, fingerprint
from contracts.ledger import Fate
from contracts.offshoots import pulled_of
from contracts.pulls import PULLS, PullRequest
from contracts.ranges import RangeSet
from contracts.watermark import AckDocument, Watermark
from edge_agent.adapters.cipher import KEY_BYTES, open_cipher
from edge_agent.adapters.disk import FolderDisk
from edge_agent.adapters.mqtt import QueueInbox
from edge_agent.adapters.process import WallClock, pss_mb
from edge_agent.agent import Agent, Settings
from edge_agent.app import resume
from edge_agent.core.accounts import Count
from edge_agent.core.arrays import ARRAYS
from edge_agent.core.filter.filtering import Filter
from edge_agent.core.intake import Intake
from edge_agent.core.plan import Plan
from edge_agent.core.sources.producers import Producers
from edge_agent.core.spool.identity import FORMAT, Identity, open_spool
from edge_agent.core.spool.record import Meta
from edge_agent.core.spool.retention import Retention
from edge_agent.core.spool.spool import Group, Spool
from edge_agent.core.stream import StreamPlan
from edge_agent.core.uplink.link import AckArrived, Answered, LinkUp, PullArrived, Subscribed
from edge_agent.feeds import Feed, Feeds
from edge_agent.reception import Reception
from edge_agent.report import Report
from infra.bundles.documents import read_contracts
from infra.setup.paths import shuttle_csv_gz
from onnx_models.dataset import SENSOR_COLUMNS, read_sensor_record

DEVICE: Final = "press-01"
EVENTS_PER_S: Final = 1_000
HOURS_BEFORE: Final = 2.0
HOURS_AFTER: Final = 1.0
ASKED_S: Final = 600
FLUSH_EVENTS: Final = 200
COPY_EVENTS: Final = 4_000
KEPT_SHARE: Final = 0.1
WARM_S: Final = 3.0  # s of live readings before anything is asked for
WITHIN_S: Final = 120.0
RING: Final = f"{HOURS_BEFORE + HOURS_AFTER:.0f} h and the ten minutes, {EVENTS_PER_S} events/s, a tenth of them kept"
ASKED: Final = f"{ASKED_S} s of all events, while {EVENTS_PER_S} events/s arrive; until the uplink has the answer"
PULL_ID: Final = "00c0ffee00c0ffee"

_Times = list[float]


def measure(
    progress: Callable[[str], None], hours: tuple[float, float] = (HOURS_BEFORE, HOURS_AFTER)
) -> dict[str, float]:
    """Return `pull_device_s`, and what else was seen on the way."""
    with TemporaryDirectory(prefix="fieldlake-pull-") as folder:
        progress(f"pull: a ring of {sum(hours):.1f} hours ...")
        ring = _Ring(Path(folder), hours)
        ring.fill()
        progress("pull: ten minutes of it, with live readings ...")
        return _Run(ring).measure()


class _First:
    """Keeps a tenth: what the first sensor shows least often."""

    def __init__(self, threshold: float) -> None:
        self.model = Model("share", "1", "none", "", SENSOR_COLUMNS, threshold, 256)

    def scores(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return rows[:, 0]


class _Ring:
    """The device's log on disk, and what of it the lake holds."""

    def __init__(self, folder: Path, hours: tuple[float, float]) -> None:
        self._folder = folder
        self._before, self._after = (round(one * 3_600 * EVENTS_PER_S) // COPY_EVENTS for one in hours)
        self._record = read_sensor_record(shuttle_csv_gz()).rows.astype(np.int32)
        now_ms = WallClock().now_ms()
        self.first_ms = now_ms - round((sum(hours) * 3_600 + ASKED_S) * 1_000)
        self.asked_ms = self.first_ms + self._before * COPY_EVENTS
        self.held: dict[str, RangeSet] = {}

    def plan(self, epoch: int) -> Plan:
        contracts = {contract.id: contract for contract in read_contracts()}
        telemetry = contracts["telemetry"]
        scorer = _First(float(np.quantile(self._record[:, 0], 1 - KEPT_SHARE)) + 0.5)
        stream = StreamPlan(telemetry, Filter(scorer.model, scorer), pulled=pulled_of(telemetry), stores=True)
        return Plan(
            DEVICE, 0, epoch, contracts["ledger"], contracts["quarantine"], (stream,), ARRAYS, pulls=contracts[PULLS]
        )

    def open(self) -> tuple[Spool, FolderDisk]:
        disk = FolderDisk(self._folder)
        key = self._folder / "key"
        if not key.exists():
            key.write_bytes(bytes(KEY_BYTES))
            key.chmod(0o600)
        wanted = Identity(DEVICE, self.first_ms // 1_000, {}, FORMAT)
        return open_spool(disk, wanted, open_cipher(key), Retention(10**12, 10**12)), disk

    def fill(self) -> None:
        spool, disk = self.open()
        before, asked = self._before * COPY_EVENTS, ASKED_S * EVENTS_PER_S
        newest = self._copies(spool, None, 0, self._before)
        intake = Intake(self.plan(spool.epoch), newest)
        for first in range(before, before + asked, FLUSH_EVENTS):
            end_ms = self.first_ms + first + FLUSH_EVENTS
            group = intake.take({"telemetry": list(self.lines(first, FLUSH_EVENTS))}, end_ms)
            assert group is not None
            spool.append(group)
            newest = group.meta
        newest = self._copies(spool, newest, before + asked, self._after)
        assert newest is not None
        self.held = {name: ((0, end),) for name, end in newest.next_seq.items() if end}
        spool.finish()
        spool.free(self.held, 0)
        spool.note(self.held)
        disk.close()

    def lines(self, first: int, events: int) -> Iterator[bytes]:
        """Return readings of which the first has this number and its time."""
        for seq in range(first, first + events):
            sensors = self._record[seq % len(self._record)].tolist()
            at = np.datetime64(self.first_ms + seq, "ms")
            named = ",".join(f'"f{place}":{value}' for place, value in enumerate(sensors, 1))
            yield f'{{"asset_id":"A-0001","occurred_at":"{at}Z",{named}}}'.encode()

    def _copies(self, spool: Spool, newest: Meta | None, first: int, copies: int) -> Meta | None:
        """Append records with the same blocks under numbers and times of their own."""
        intake = Intake(self.plan(spool.epoch), None)
        made = intake.take({"telemetry": list(self.lines(0, COPY_EVENTS))}, 0)
        assert made is not None
        batch = next(ref for ref in made.meta.batches if ref.contract == "telemetry")
        blocks = made.batches[:1]
        for copy in range(copies):
            at = first + copy * COPY_EVENTS
            times_us = (1_000 * (self.first_ms + at), 1_000 * (self.first_ms + at + COPY_EVENTS - 1))
            rest = COPY_EVENTS - batch.rows
            meta = Meta(
                number=newest.number + 1 if newest is not None else 0,
                next_seq={**(newest.next_seq if newest is not None else {}), "telemetry": at + COPY_EVENTS},
                batches=(replace(batch, first_seq=at),),
                counts=(
                    Count("telemetry", Fate.KEPT.value, "", "", batch.rows),
                    Count("telemetry", Fate.DROPPED.value, "share@1", "filtered", rest),
                ),
                sealed_at_ms=times_us[1] // 1_000,
                stored=tuple(replace(ref, first_seq=at) for ref in made.meta.stored),
                times_us={"telemetry": times_us},
            )
            spool.append(Group(meta, blocks, made.stored))
            newest = meta
        return newest


class _Live:
    """A machine that has something to say for ever; remembers when it was asked."""

    def __init__(self, ring: _Ring, first: int) -> None:
        self.at_end = False
        self.read_s: _Times = []
        self._ring = ring
        self._at = first

    def read(self, events_max: int) -> list[bytes]:
        self.read_s.append(time.monotonic())
        found = list(self._ring.lines(self._at, events_max))
        self._at += len(found)
        return found

    def skip(self, events: int) -> int:
        return events

    def close(self) -> None:
        return


class _Run:
    """An agent over the ring, and an uplink that takes everything at once, with a lake behind it."""

    def __init__(self, ring: _Ring) -> None:
        self._ring = ring
        self._inbox = QueueInbox()
        self._held = dict(ring.held)
        self._names: dict[int, Contract] = {}
        self._messages = 0
        self._asked_s: float | None = None
        self._answered_s: float | None = None
        self._asked_cpu_s = self._answered_cpu_s = 0.0
        self._pss: list[float] = []
        self.link = 0
        self.rows = self.wire_bytes = 0

    def measure(self) -> dict[str, float]:
        spool, disk = self._ring.open()
        plan = self._ring.plan(spool.epoch)
        intake = Intake(plan, spool.recovered.newest)
        self._epoch = spool.epoch
        pulled = plan.streams[0].pulled
        assert pulled is not None
        assert plan.pulls is not None
        self._names = {fingerprint(c): c for c in (plan.streams[0].source, pulled, plan.pulls, plan.ledger)}
        live = _Live(self._ring, intake.next_seq("telemetry"))
        resume(intake, spool, {"telemetry": live}, WallClock().now_ms())
        self._agent = Agent(
            Settings(DEVICE, until_drained=False), intake, spool,
            Feeds([Feed("telemetry", live, EVENTS_PER_S, FLUSH_EVENTS / EVENTS_PER_S)]), Reception((), (), Producers()),
            self, self._inbox, WallClock(), lambda: 0.5, pss_mb, self._on_status,
        )  # fmt: skip
        self._agent.answer_pulls(stores=True)
        self._begun_s = time.monotonic()
        self._agent.run()
        disk.close()
        return self._figures(live.read_s)

    def _figures(self, read_s: _Times) -> dict[str, float]:
        assert self._asked_s is not None
        if self._answered_s is None:
            raise TimeoutError(f"pull: no answer within {WITHIN_S:.0f} s")
        during = [at for at in read_s if self._asked_s <= at <= self._answered_s]
        gaps_ms = [1_000 * (later - sooner) for sooner, later in pairwise(during)]
        late_ms = max(gaps_ms, default=0.0) - 1_000 * FLUSH_EVENTS / EVENTS_PER_S
        return {
            "pull_device_s": round(self._answered_s - self._asked_s, 3),
            "pull_cpu_s": round(self._answered_cpu_s - self._asked_cpu_s, 3),
            "pull_rows": float(self.rows),
            "pull_wire_mb": round(self.wire_bytes / 1e6, 2),
            "pull_flush_late_max_ms": round(max(0.0, late_ms), 1),
            "pull_memory_mb": round(max(self._pss) - self._pss[0], 1),
        }

    def _on_status(self, report: Report) -> None:
        now_s = time.monotonic()
        if report.pss_mb is not None and (self._asked_s is not None or now_s - self._begun_s > WARM_S - 1):
            self._pss.append(report.pss_mb)
        if self._asked_s is None and now_s - self._begun_s > WARM_S:
            self._asked_s, self._asked_cpu_s = time.monotonic(), time.process_time()
            self._inbox.put(PullArrived(self.link, PULL_ID, pulls.encode(self._request())))
        if self._answered_s is not None or now_s - self._begun_s > WARM_S + WITHIN_S:
            self._agent.stop()

    def _request(self) -> PullRequest:
        now_ms, first_us = WallClock().now_ms(), self._ring.asked_ms * 1_000
        end_us = first_us + ASKED_S * 1_000_000
        return PullRequest(
            PULL_ID, "telemetry", first_us, end_us, now_ms, now_ms + 3_600_000, bytes_max=pulls.BYTES_MAX
        )

    # The uplink.

    def connect(self, epoch: int) -> None:
        self.link += 1
        self._inbox.put(LinkUp(self.link, 20, None))
        self._inbox.put(Subscribed(self.link, 1))
        self._acknowledge()

    def publish(self, batch: bytes) -> int:
        header, _ = microbatch.parse(batch)
        name = self._names[header.fingerprint].id
        self._held[name] = ranges.add(self._held.get(name, ()), header.first_seq, header.end_seq)
        if name.endswith("_pulled"):
            self.rows += header.rows
            self.wire_bytes += len(batch)
        elif name == PULLS:
            self._answered_s, self._answered_cpu_s = time.monotonic(), time.process_time()
        self._messages += 1
        self._inbox.put(Answered(self.link, self._messages, 0))
        self._acknowledge()
        return self._messages

    def request_certificate(self, request: bytes) -> None:
        return

    def drop(self) -> None:
        return

    def close(self, epoch: int) -> None:
        return

    def _acknowledge(self) -> None:
        marks = tuple(Watermark(DEVICE, name, self._epoch, held, 1, 0) for name, held in self._held.items())
        self._inbox.put(AckArrived(self.link, watermark.encode(AckDocument(DEVICE, marks))))

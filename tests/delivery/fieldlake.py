"""Fieldlake's own agent in the kit: its configuration file, spool folder, status file and process, and nothing else.

The producer is a file that the agent follows. An event counts as acknowledged once the status says that it is in the
spool; `forget_accepted` then blots it out of the file, so that only the spool can still deliver it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from signal import Signals
from typing import Any, Final

import yaml

from contracts import bundle as bundles
from contracts import microbatch, odcs, topics, watermark
from contracts.bundle import Bundle, Stream
from contracts.contract import Contract, fingerprint
from contracts.errors import BatchError
from contracts.ranges import RangeSet
from contracts.watermark import AckDocument, Watermark
from edge_agent.adapters.disk import LOCK_FILE
from edge_agent.adapters.followed_file import HEAD_BYTES
from edge_agent.app import KEY_FILE
from edge_agent.core.spool.reserve import RESERVE_FILE
from edge_agent.environment import AGENT_ENVIRONMENT
from tests.delivery.agent import Account, Capability, Landed, Place, Receipt, Refusal, Status
from tests.edge_agent.plant import CONTRACTS, ROOT, Lake, rows_of

PROBE: Final = "probe"
NEVER_SENT: Final = 1_000_000  # numbers; more than any scenario offers
_EVERYTHING: Final[RangeSet] = ((0, NEVER_SENT),)
# Python loads a module of this name at its start. Only scenarios that move the clock have it.
_CLOCK: Final = '''"""A clock that reads its offset from a file."""
import pathlib
import time

_real_ns, _file = time.time_ns, pathlib.Path(__file__).with_name("offset_s")
time.time_ns = lambda: _real_ns() + int(_file.read_text()) * 10**9
time.time = lambda: time.time_ns() / 1e9
'''


def probe_contracts() -> dict[str, Contract]:
    document = yaml.safe_load(Path(__file__).with_name("probe.odcs.yaml").read_text(encoding="utf-8"))
    return {PROBE: odcs.contract_of(document), "ledger": CONTRACTS["ledger"], "quarantine": CONTRACTS["quarantine"]}


class FieldlakeLanding:
    """The lake's side of Fieldlake's protocol: takes ranges once, receipts them with watermarks."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.faults: list[str] = []
        self._contracts = probe_contracts()
        self._probe = fingerprint(self._contracts[PROBE])
        self._lake = Lake(device, self._contracts)
        self._events: list[Landed] = []
        self._rows: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
        self._packets = 0
        self._repeats = 0

    def take(self, payload: bytes) -> None:
        try:
            header, _ = microbatch.parse(payload)
            known = len(self._lake.batches)
            self._lake.take(payload)
        except (BatchError, AssertionError, KeyError) as error:
            self.faults.append(f"{type(error).__name__}: {error}")
            return
        if header.fingerprint != self._probe:
            return
        self._packets += 1
        rows = rows_of(self._contracts[PROBE], payload)
        place = (header.epoch, header.first_seq, header.span)
        if self._rows.setdefault(place, rows) != rows:
            self.faults.append(f"numbers {place} came again with other rows")
        if len(self._lake.batches) == known:
            self._repeats += 1
            return
        self._events += [Landed(row["number"], row["text"], row["value"], (header.epoch, row["seq"])) for row in rows]

    def events(self) -> Sequence[Landed]:
        return list(self._events)

    def packets(self) -> int:
        return self._packets

    def repeats(self) -> int:
        return self._repeats

    def epoch(self) -> int | None:
        return max((header.epoch for _, header, _ in list(self._lake.batches)), default=None)

    def refusals(self) -> Sequence[Refusal]:
        return [Refusal(row["rule"], row["original"]) for row in self._lake.rows("quarantine")]

    def accounts(self) -> Sequence[Account]:
        return [
            Account(r["fate"], r["first_seq"], r["first_seq"] + r["span"], r["count"], r["rule"], r["reason"])
            for r in self._lake.rows("ledger")
            if r["stream"] == PROBE
        ]

    def receipt(self, kind: Receipt = Receipt.OWN) -> tuple[str, bytes]:
        topic = topics.ack(self.device)
        if kind is Receipt.GARBAGE:
            return topic, b"\x00{not a document"
        return topic, watermark.encode(self._document(kind))

    def _document(self, kind: Receipt) -> AckDocument:
        own = self._lake.ack()
        epoch = self.epoch() or 0
        committed = self._lake.committed(PROBE, epoch)
        end = committed[-1][1] if committed else 0
        starts = sorted(h.first_seq for name, h, _ in list(self._lake.batches) if name == PROBE and h.epoch == epoch)
        half = starts[len(starts) // 2] if starts else 0
        match kind:
            case Receipt.OWN:
                return own
            case Receipt.OLDER_EPOCH:
                return self._saying(self.device, PROBE, epoch - 1, _EVERYTHING)
            case Receipt.NEWER_EPOCH:
                return self._saying(self.device, PROBE, epoch + 1, _EVERYTHING)
            case Receipt.OTHER_DEVICE:
                return self._saying("device-2", PROBE, epoch, _EVERYTHING)
            case Receipt.OTHER_STREAM:
                return self._saying(self.device, "quarantine", epoch, _EVERYTHING)
            case Receipt.HALF:
                return self._saying(self.device, PROBE, epoch, ((0, half),))
            case Receipt.BEYOND:
                return self._saying(self.device, PROBE, epoch, ((0, end + NEVER_SENT),))
            case _:
                raise ValueError(kind)

    def _saying(self, device: str, contract: str, epoch: int, committed: RangeSet) -> AckDocument:
        return AckDocument(device, (Watermark(device, contract, epoch, committed, 1, 0),))


NO_DATA: Final = frozenset({KEY_FILE, RESERVE_FILE, LOCK_FILE})  # of the spool's folder


class FieldlakeAgent:
    """One agent process over one followed file."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.landing = FieldlakeLanding(place.device)
        self._source = place.folder / "source.jsonl"
        self._status_file = place.folder / "status.json"
        self._log_file = place.folder / "agent.log"
        self._spool = place.durable_dir / "spool"
        self._clock_dir: Path | None = None
        self._processes: list[subprocess.Popen[bytes]] = []  # the newest last
        bundle_dir = place.folder / "bundle"
        bundle_dir.mkdir()
        bundle = Bundle("1", tuple(probe_contracts().values()), (Stream(PROBE),))
        (bundle_dir / bundles.BUNDLE_FILE).write_bytes(bundles.encode(bundle))
        self._bundle_dir = bundle_dir

    @property
    def pid(self) -> int:
        return self._processes[-1].pid

    def start(self) -> None:
        config_file = self._place.folder / "agent.json"
        config_file.write_text(json.dumps(self._config()))
        command = [*self._place.enter, sys.executable, "-W", "error", "-m", "edge_agent", "--config", str(config_file)]
        environment = os.environ | AGENT_ENVIRONMENT
        if self._clock_dir is not None:
            environment |= {"PYTHONPATH": str(self._clock_dir)}
        with self._log_file.open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, cwd=ROOT, env=environment
            )
        self._processes.append(process)

    def signal(self, number: Signals) -> None:
        self._processes[-1].send_signal(number)

    def wait(self, deadline_s: float) -> int | None:
        try:
            return self._processes[-1].wait(deadline_s)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def offer(self, events: Sequence[bytes]) -> None:
        with self._source.open("ab") as file:
            file.write(b"".join(event + b"\n" for event in events))

    def accepted(self) -> int:
        stream = self._report().get("streams", {}).get(PROBE)
        return int(stream["observed"]) if stream else 0

    def forget_accepted(self) -> None:
        lines = self._source.read_bytes().split(b"\n")
        # The beginning stays: the agent knows a followed file by it.
        offset = 0
        for at in range(self.accepted()):
            length = len(lines[at])
            if offset > HEAD_BYTES:
                lines[at] = b"x" * length
            offset += length + 1
        with self._source.open("r+b") as file:
            file.write(b"\n".join(lines))

    def status(self) -> Status:
        report = self._report()
        if not report:
            return Status()
        return Status(report["pending_batches"], report["link"] == "up", report["last_error"])

    def status_text(self) -> bytes | None:
        return self._status_file.read_bytes() if self._status_file.exists() else None

    def log(self) -> str:
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    def durable_files(self) -> list[Path]:
        files = [path for path in self._spool.iterdir() if path.is_file() and path.name not in NO_DATA]
        logs = sorted((path for path in files if path.suffix == ".log"), reverse=True)
        return [*logs, *sorted(path for path in files if path not in logs)]

    def forget_everything(self) -> None:
        for path in self.durable_files():
            path.unlink()

    def move_clock(self, by_s: int) -> None:
        if self._clock_dir is None:
            self._clock_dir = self._place.folder / "clock"
            self._clock_dir.mkdir()
            (self._clock_dir / "sitecustomize.py").write_text(_CLOCK)
        temporary = self._clock_dir / "offset_s.tmp"
        temporary.write_text(str(by_s))
        temporary.rename(self._clock_dir / "offset_s")

    def says_online(self, presence: bytes) -> bool:
        return bool(json.loads(presence)["online"])

    def sums(self) -> dict[str, int]:
        stream = self._report().get("streams", {}).get(PROBE, {})
        dropped = sum(stream.get("dropped", {}).values())
        said = {fate: int(stream.get(fate, 0)) for fate in ("kept", "aggregated", "lost")} | {"dropped": dropped}
        return {fate: count for fate, count in said.items() if count}

    def _report(self) -> dict[str, Any]:
        text = self.status_text()
        report: dict[str, Any] = json.loads(text) if text else {}
        return report

    def _config(self) -> dict[str, Any]:
        place = self._place
        return {
            "device": place.device,
            "shard": 0,
            "mqtt": {
                "host": place.host,
                "port": place.fault or place.port,
                "ca_file": str(place.ca_file),
                "cert_file": str(place.cert_file),
                "key_file": str(place.key_file),
            },
            "bundle_dir": str(self._bundle_dir),
            "spool_dir": str(self._spool),
            "status_file": str(self._status_file),
            "sources": [
                {
                    "kind": "file",
                    "name": "probe",
                    "file": str(self._source),
                    "contract": PROBE,
                    "follow": not place.drains,
                }
            ],
            "spool": {"ring_hours": 0},
            "until_drained": place.drains,
        }


class Fieldlake:
    """Makes Fieldlake agents."""

    name = "fieldlake"
    about = (
        "The agent of this repository, as it is started in the field: one stream that keeps every valid event, "
        "followed file as producer, MQTT 5 over mutual TLS, receipts by watermark."
    )
    capabilities = frozenset(
        {
            Capability.CLOCK, Capability.DISK_BYTES, Capability.DRAINS, Capability.IDENTITY, Capability.LEDGER,
            Capability.RECEIPTS, Capability.STATUS_BACKLOG, Capability.STATUS_ERROR, Capability.STATUS_FILE,
            Capability.STATUS_LINK, Capability.VALIDATION,
        }
    )  # fmt: skip

    def version(self) -> str:
        """Return the commit that is checked out."""
        command = ["git", "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    def make(self, place: Place) -> FieldlakeAgent:
        """Install an agent; it is not started."""
        return FieldlakeAgent(place)

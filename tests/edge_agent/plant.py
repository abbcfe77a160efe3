"""What the agent's tests play against: a bundle, a broker of one's own, and a lake that answers as it is told."""

import datetime
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from contracts import bundle as bundles
from contracts import microbatch, odcs, ranges, topics, watermark
from contracts.bundle import Bundle, Model, Stream, Windows
from contracts.contract import Contract, fingerprint
from contracts.ranges import RangeSet
from contracts.watermark import AckDocument, Watermark
from edge_agent.environment import AGENT_ENVIRONMENT
from lakehouse.decode import Arrived, decode
from tests.waiting import DEADLINE_S, eventually

ROOT: Final = Path(__file__).resolve().parents[2]
HOST: Final = "127.0.0.1"
SENSORS: Final = tuple(f"f{number}" for number in range(1, 10))
WINDOW_MS: Final = 10_000
DAY: Final = datetime.timedelta(days=1)
Json = dict[str, Any]


def contract(name: str) -> Contract:
    """Return a published contract."""
    return odcs.contract_of(yaml.safe_load((ROOT / "contracts/documents" / f"{name}.odcs.yaml").read_text()))


CONTRACTS: Final = {
    name: contract(name)
    for name in (
        "telemetry", "telemetry_windows", "ledger", "quarantine", "clicks", "purchases", "visits", "consents",
    )
}  # fmt: skip


def bundle_of(model: Model | None = None, *, windows: bool = True) -> Bundle:
    """Return a bundle over all contracts."""
    plans = (Windows("telemetry_windows", WINDOW_MS, SENSORS),) if windows else ()
    stream = Stream("telemetry", model.id if model else None, plans)
    return Bundle("1", tuple(CONTRACTS.values()), (stream,), models=(model,) if model else ())


def reading(seq: int, **changes: Any) -> Json:
    """Return a valid telemetry event: three machines in turn, four readings a second."""
    moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(milliseconds=250 * seq)
    event: Json = {"asset_id": f"asset-{seq % 3}", "occurred_at": moment.isoformat().replace("+00:00", "Z")}
    event |= {name: (seq * 7 + place * 13) % 100 for place, name in enumerate(SENSORS)}
    return event | changes


def lines_of(events: list[Json]) -> list[bytes]:
    """Return events as compact JSON lines."""
    return [json.dumps(event, separators=(",", ":")).encode() for event in events]


def rows_of(contract: Contract, batch: bytes) -> list[Json]:
    """Decode one batch to rows, as the lake does. The batch has no dictionary."""
    header, payload = microbatch.parse(batch)
    decoded, refused = decode([Arrived("device", "test/0/0", header, payload, batch)], contract, {})
    assert refused == (), refused
    rows: list[Json] = decoded.rows.to_pylist()
    return rows


class Lake:
    """Holds batches by stream range, as the real one does: what it has it does not take again."""

    def __init__(
        self, device: str, contracts: Mapping[str, Contract] = CONTRACTS, versions: Iterable[Contract] = ()
    ) -> None:
        """`versions` are further versions of contracts."""
        self.device = device
        self.batches: list[tuple[str, microbatch.Header, bytes]] = []
        self.doubled = 0
        self._contracts = {fingerprint(c): c for c in (*contracts.values(), *versions)}
        self._committed: dict[tuple[str, int], RangeSet] = {}
        self.received = 0

    def take(self, data: bytes) -> None:
        """Commit a batch; refuse one that overlaps what is there without being it."""
        header, _ = microbatch.parse(data)
        name = self._contracts[header.fingerprint].id
        self.received += 1
        held = self._committed.get((name, header.epoch), ())
        if ranges.covers(held, header.first_seq, header.end_seq):
            self.doubled += 1
            return
        gaps = ranges.missing(held, header.first_seq, header.end_seq)
        assert gaps == ((header.first_seq, header.end_seq),) or list(gaps) == [(header.first_seq, header.end_seq)], (
            f"{name} [{header.first_seq}, {header.end_seq}) overlaps {held}"
        )
        self._committed[name, header.epoch] = ranges.add(held, header.first_seq, header.end_seq)
        self.batches.append((name, header, data))

    def rows(self, name: str) -> list[Json]:
        """Return all rows of a contract, in the order of their numbers."""
        found = [
            row
            for contract, header, data in self.batches
            if contract == name
            for row in rows_of(self._contracts[header.fingerprint], data)
        ]
        return sorted(found, key=lambda row: row["seq"])

    def committed(self, name: str, epoch: int) -> RangeSet:
        """Return what it holds of a stream."""
        return self._committed.get((name, epoch), ())

    def ack(self) -> AckDocument:
        """Return the watermarks of the newest epoch of each stream."""
        document = AckDocument(self.device)
        for (name, epoch), committed in self._committed.items():
            document = watermark.advance(document, Watermark(self.device, name, epoch, committed, 1, 0))
        return document

    def assert_conserves(self, observed: int, stream: str = "telemetry") -> None:
        """Assert that ledger and rows together explain every event exactly once."""
        entries = [row for row in self.rows("ledger") if row["stream"] == stream]
        assert sum(row["count"] for row in entries) == observed
        seqs = [row["seq"] for row in self.rows(stream)]
        assert len(seqs) == len(set(seqs))
        assert sum(row["count"] for row in entries if row["fate"] == "kept") == len(seqs)
        for name in ("ledger", "quarantine", "telemetry_windows"):
            numbers = [row["seq"] for row in self.rows(name)]
            assert numbers == sorted(set(numbers))


class Certificates:
    """A certificate authority of one's own, and what it signed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(self._sign(self._name, self._key, HOST, DAY, authority=True))

    def issue(self, name: str, address: str = HOST, ends_in: datetime.timedelta = DAY) -> tuple[Path, Path]:
        """Return the files of a certificate for a name and an address, and of its key; it may have ended already."""
        key = ec.generate_private_key(ec.SECP256R1())
        cert_file, key_file = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        cert_file.write_bytes(self._sign(subject, key, address, ends_in, authority=False))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return cert_file, key_file

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        address: str,
        ends_in: datetime.timedelta,
        *,
        authority: bool,
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, now + ends_in) - datetime.timedelta(hours=1))
            .not_valid_after(now + ends_in)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Broker:
    """A mosquitto that takes only devices with a certificate, each under its own name."""

    def __init__(self, folder: Path, options: str = "") -> None:
        self.folder = folder
        self.certificates = Certificates(folder)
        self.port = free_port()
        cert_file, key_file = self.certificates.issue("broker")
        acl = folder / "acl"
        acl.write_text(
            "pattern write fl/v1/up/+/%u\npattern read fl/v1/down/%u/#\npattern write fl/v1/state/%u\n"
            "user lake\ntopic readwrite fl/v1/#\n"
        )
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} {HOST}\ncafile {self.certificates.ca_file}\ncertfile {cert_file}\n"
            f"keyfile {key_file}\nrequire_certificate true\nuse_identity_as_username true\nacl_file {acl}\n"
            f"allow_anonymous false\npersistence false\nmax_inflight_messages 20\nuser {getpass.getuser()}\n{options}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        assert program is not None
        with (self.folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen([program, "-c", str(self._config)], stdout=log, stderr=log)
        eventually(self._listens, f"the broker listens, log {self.folder / 'mosquitto.log'}")

    def kill(self) -> None:
        """End it with kill -9; it keeps nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0


class LakeClient:
    """Takes batches from the broker into a lake, and answers with retained watermarks while `answers` is set."""

    def __init__(self, broker: Broker, lake: Lake, shard: int = 0) -> None:
        self.lake = lake
        self.answers = threading.Event()
        self.answers.set()
        cert_file, key_file = broker.certificates.issue("lake")
        self._shard = shard
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=f"lake-{shard}", protocol=MQTTv5)
        self._client.tls_set(str(broker.certificates.ca_file), str(cert_file), str(key_file))
        self._client.on_connect = lambda client, *_: client.subscribe(topics.up_filter(shard), qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.connect(HOST, broker.port)
        self._client.loop_start()
        assert self._subscribed.wait(DEADLINE_S)

    def publish_ack(self, document: AckDocument | None = None) -> None:
        """Publish watermarks, the lake's own unless others are given."""
        data = watermark.encode(document if document is not None else self.lake.ack())
        self._client.publish(topics.ack(self.lake.device), data, qos=1, retain=True)

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self.lake.take(bytes(message.payload))
        if self.answers.is_set():
            self.publish_ack()


class AgentProcess:
    """An agent as a launcher would start it."""

    def __init__(self, folder: Path, broker: Broker, bundle: Bundle, files: Mapping[str, bytes] = {}) -> None:
        self.folder = folder
        self.device = f"device-{os.getpid()}"
        bundle_dir = folder / "bundle"
        bundle_dir.mkdir()
        (bundle_dir / bundles.BUNDLE_FILE).write_bytes(bundles.encode(bundle))
        for name, data in files.items():
            (bundle_dir / name).write_bytes(data)
        cert_file, key_file = broker.certificates.issue(self.device)
        self.spool_dir, self.status_file = folder / "spool", folder / "status.json"
        self.source_file = folder / "source.jsonl"
        self.config: Json = {
            "device": self.device,
            "shard": 0,
            "mqtt": {
                "host": HOST,
                "port": broker.port,
                "ca_file": str(broker.certificates.ca_file),
                "cert_file": str(cert_file),
                "key_file": str(key_file),
            },
            "bundle_dir": str(bundle_dir),
            "spool_dir": str(self.spool_dir),
            "status_file": str(self.status_file),
            "sources": [{"kind": "file", "name": "replay", "file": str(self.source_file), "contract": "telemetry"}],
            "until_drained": True,
        }
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it."""
        config_file = self.folder / "agent.json"
        config_file.write_text(json.dumps(self.config))
        with (self.folder / "agent.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "edge_agent", "--config", str(config_file)],
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env=os.environ | AGENT_ENVIRONMENT,
                text=True,
            )

    def wait(self) -> tuple[int, Json]:
        """Wait for its end; return its exit code and the ledger it printed."""
        assert self._process is not None
        out, _ = self._process.communicate(timeout=DEADLINE_S)
        assert out, f"exit code {self._process.returncode}: {self.log()}"
        return self._process.returncode, json.loads(out)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it with kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def status(self) -> Json:
        """Return its newest status, empty before the first."""
        return json.loads(self.status_file.read_text()) if self.status_file.exists() else {}

    def observed(self, stream: str) -> int:
        """Return how many events of a stream its newest status accounts for."""
        found: int = self.status().get("streams", {}).get(stream, {}).get("observed", 0)
        return found

    def log(self) -> str:
        """Return what it logged."""
        return (self.folder / "agent.log").read_text()


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port

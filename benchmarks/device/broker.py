"""A mosquitto of one's own: TLS 1.3, a certificate for everyone, nothing kept on its disk."""

import datetime as dt
import getpass
import ipaddress
import os
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Struct

from contracts.errors import OperatorMustActError
from gateway.enrolment import papers
from infra.setup.paths import mosquitto_binary

HOST: Final = "127.0.0.1"
LISTENS_WITHIN_S: Final = 10.0
VALID: Final = dt.timedelta(days=1)
BACKDATED: Final = dt.timedelta(hours=1)  # a clock that is set back during a run must not end it
AUTHORITY: Final = "benchmark authority"
RULES: Final = (
    "pattern write fl/v1/up/+/%u\npattern write fl/v1/state/%u\npattern read fl/v1/down/%u/#\n"
    "user lake\ntopic read fl/v1/up/#\ntopic write fl/v1/down/#\n"
)


class Identity(Struct, frozen=True):
    """Files in PEM form with which a client connects."""

    ca_file: Path
    cert_file: Path
    key_file: Path


class Broker:
    """Runs between `with` and its end. Devices speak under their own name, `lake` hears them and answers."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._ca_file = folder / "ca.pem"
        self._ca_file.write_bytes(self._signed(AUTHORITY, self._key, is_authority=True))
        self._issued: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def identity(self, name: str) -> Identity:
        """Return a certificate for a name, and its key."""
        found = Identity(self._ca_file, self._folder / f"{name}.pem", self._folder / f"{name}.key")
        if name not in self._issued:
            self._issued.add(name)
            key = ec.generate_private_key(ec.SECP256R1())
            found.key_file.write_bytes(papers.key_pem(key))
            found.cert_file.write_bytes(self._signed(name, key, is_authority=False))
        return found

    def __enter__(self) -> "Broker":
        """Start it and wait until it listens. Raises OperatorMustActError when it does not."""
        if not mosquitto_binary().exists():
            raise OperatorMustActError(f"{mosquitto_binary()}: expected the broker, found none: run make setup")
        (self._folder / "acl").write_text(RULES)
        config = self._folder / "mosquitto.conf"
        config.write_text(self._settings(self.identity("broker")))
        log = self._folder / "mosquitto.log"
        with log.open("ab") as output:
            command = [str(mosquitto_binary()), "-c", str(config)]
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        deadline_s = time.monotonic() + LISTENS_WITHIN_S
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise OperatorMustActError(f"mosquitto: expected it to listen on port {self.port}: {log.read_text()}")
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _settings(self, own: Identity) -> str:
        return (
            f"listener {self.port} {HOST}\nallow_anonymous false\nacl_file {self._folder / 'acl'}\n"
            f"cafile {own.ca_file}\ncertfile {own.cert_file}\nkeyfile {own.key_file}\ntls_version tlsv1.3\n"
            "require_certificate true\nuse_identity_as_username true\npersistence false\nset_tcp_nodelay true\n"
            "max_inflight_messages 20\nmax_queued_messages 100000\nlog_type error\nconnection_messages false\n"
            f"user {getpass.getuser()}\n"
        )

    def _signed(self, name: str, key: ec.EllipticCurvePrivateKey, *, is_authority: bool) -> bytes:
        now = dt.datetime.now(dt.UTC)
        address = x509.IPAddress(ipaddress.ip_address(HOST))
        certificate = (
            papers.builder(name, papers.named(AUTHORITY), key.public_key(), now - BACKDATED, now + VALID)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(papers.usage(signs_certificates=is_authority), critical=True)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def pin(process: int, core: int) -> None:
    """Let a process, and what it starts later, run on one core only."""
    os.sched_setaffinity(process, {core})

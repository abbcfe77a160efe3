"""One device agent that replays a file: its folder, its configuration, its process and the ledger it ends with."""

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil
from msgspec import Struct

from contracts.errors import OperatorMustActError, RetrySafeError
from contracts.topics import is_origin
from edge_agent.adapters.identity import Generation
from edge_agent.config import AgentConfig, FileSource, MqttConfig, ProfileName
from edge_agent.environment import AGENT_ENVIRONMENT
from infra.fleet.identity import ensure_identity, identity_folder
from infra.launcher.endpoints import Endpoints
from infra.launcher.files import write_file
from infra.setup.paths import edge_python, repo_root

SHARD: Final = 0  # the local stack has one gateway, which owns this shard
LOG_TAIL_CHARS: Final = 400  # of an agent's log, quoted when it failed


class Replay(Struct, frozen=True):
    """What an agent is to do: read a file of one contract's events at a rate (0: as fast as the spool takes them).

    `profile` is that of the device.
    """

    device: str
    contract: str
    file: Path
    rate_events_per_s: float = 0.0
    flush_interval_ms: int = 200
    profile: ProfileName = "full"


def check(replay: Replay) -> None:
    """Raise OperatorMustActError when the device's name or the file cannot be used."""
    if not is_origin(replay.device):
        raise OperatorMustActError(
            f"device {replay.device!r}: expected up to 64 of ASCII letters, digits, '-', '_', '.'"
        )
    if not replay.file.is_file():
        raise OperatorMustActError(f"{replay.file}: expected a file of events (JSON lines or CSV), found none")


def prepare(
    endpoints: Endpoints,
    bundle_dir: Path,
    replay: Replay,
    identify: Callable[[Endpoints, str], Generation] = ensure_identity,
) -> Path:
    """Write the agent's configuration and return its path.

    The spool belongs to device and file: the same replay goes on where it stopped, another file begins a new epoch.
    `identify` sees to the device's key and certificate, by default through the stack's enrolment service.
    Raises OperatorMustActError when the device's name or the file cannot be used.
    """
    check(replay)
    identify(endpoints, replay.device)
    home = home_of(endpoints, replay)
    _refuse_beside_unfinished(home, replay.device)
    config = AgentConfig(
        device=replay.device,
        shard=SHARD,
        mqtt=MqttConfig(
            host=endpoints.mqtt.host,
            port=endpoints.mqtt.port,
            ca_file=endpoints.mqtt.ca_file,
            identity_dir=str(identity_folder(endpoints, replay.device)),
        ),
        bundle_dir=str(bundle_dir),
        spool_dir=str(home / "spool"),
        status_file=str(home / "status.json"),
        sources=(FileSource("replay", str(replay.file.resolve()), replay.contract, replay.rate_events_per_s),),
        flush_interval_ms=replay.flush_interval_ms,
        until_drained=True,
        profile=replay.profile,
    )
    path = home / "agent.json"
    write_file(path, msgspec.json.encode(config))
    return path


def home_of(endpoints: Endpoints, replay: Replay) -> Path:
    """Return the folder of one device's replay of one file."""
    digest = hashlib.sha256(f"{replay.contract}\0{replay.file.resolve()}".encode())
    digest.update(str(replay.file.stat().st_size).encode())
    return Path(endpoints.state_dir) / "devices" / replay.device / digest.hexdigest()[:12]


def _refuse_beside_unfinished(home: Path, device: str) -> None:
    """Raise OperatorMustActError when another spool of the device holds what the lake has not committed.

    A newer epoch ends the older one's receipts: that spool could never drain again.
    """
    for other in sorted(home.parent.glob("*")):
        if other == home or not (other / "spool").exists():
            continue
        status = other / "status.json"
        # Not by the streams' watermarks alone: open windows and ledger entries wait in the spool without a number yet.
        if not status.exists() or not msgspec.json.decode(status.read_bytes())["drained"]:
            sources = msgspec.json.decode((other / "agent.json").read_bytes(), type=AgentConfig).sources
            file = ", ".join(source.file for source in sources if isinstance(source, FileSource))
            raise OperatorMustActError(
                f"device {device!r}: its replay of {file} is not drained: run that one to its end first, "
                f"replay this file under another --device, or delete {other}"
            )


class AgentProcess:
    """A running agent. Its standard output, the ledger, goes to `ledger.json` beside its configuration."""

    def __init__(self, config_file: Path) -> None:
        self.config_file = config_file
        self._home = config_file.parent
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; its log is appended to `agent.log`."""
        environment = {**os.environ, **AGENT_ENVIRONMENT, "PYTHONPATH": str(repo_root())}
        with (self._home / "ledger.json").open("wb") as ledger, (self._home / "agent.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(edge_python()), "-m", "edge_agent", "--config", str(self.config_file)],
                stdin=subprocess.DEVNULL,
                stdout=ledger,
                stderr=log,
                env=environment,
                # A group of its own: Ctrl-C reaches the command, which then stops its agents in order. Not a session:
                # where the kernel shares the processor by session, each agent would weigh as much as the whole stack.
                process_group=0,
            )

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def kill(self) -> None:
        """kill -9, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self, timeout_s: float) -> None:
        """Ask it to flush and stop; kill it when it does not within the time."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def wait(self, timeout_s: float | None) -> dict[str, Any]:
        """Wait until the lake's watermark covers its last event; return its ledger.

        Raises RetrySafeError when time runs out (the same replay goes on where it stopped), OperatorMustActError when
        the agent failed.
        """
        if self._process is None:
            raise OperatorMustActError(f"agent of {self.config_file}: start it before waiting for it")
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise RetrySafeError(
                f"agent of {self.config_file}: not drained after {timeout_s} s: {self.last_error()}; "
                "run the same replay again, it goes on where it stopped"
            ) from error
        written = (self._home / "ledger.json").read_bytes()
        if code != 0 or not written:
            raise OperatorMustActError(f"agent of {self.config_file}: exit code {code}: {self.last_error()}")
        ledger: dict[str, Any] = msgspec.json.decode(written)
        return ledger

    def status(self) -> dict[str, Any]:
        """Return what the agent last wrote of itself, empty before its first second."""
        path = self._home / "status.json"
        found: dict[str, Any] = msgspec.json.decode(path.read_bytes()) if path.exists() else {}
        return found

    def pss_mb(self) -> float | None:
        """Proportional set size in MB (10^6 bytes) while it runs."""
        if self.pid is None:
            return None
        try:
            return float(psutil.Process(self.pid).memory_full_info().pss) / 1e6
        except psutil.NoSuchProcess:
            return None

    def last_error(self) -> str:
        """The end of its log."""
        log = self._home / "agent.log"
        return log.read_text(errors="replace")[-LOG_TAIL_CHARS:].strip() if log.exists() else "no log"

"""An agent as its starter runs it: the device's own environment, its configuration, and what it costs."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil

from benchmarks.device.broker import HOST, Broker, pin
from benchmarks.device.lake import SHARD
from contracts.errors import OperatorMustActError
from edge_agent.config import AgentConfig, AnySource, MqttConfig, ProfileName, SpoolConfig
from edge_agent.environment import AGENT_ENVIRONMENT
from edge_agent.report import Report
from infra.setup.paths import edge_python, repo_root

ENDS_WITHIN_S: Final = 30.0
LOG_TAIL_CHARS: Final = 400  # of an agent's log, quoted when it failed


class DeviceProcess:
    """One agent in a folder of its own; started again it goes on with the same spool."""

    def __init__(
        self,
        folder: Path,
        broker: Broker,
        device: str,
        bundle_dir: Path,
        sources: tuple[AnySource, ...],
        *,
        spool: SpoolConfig = SpoolConfig(),  # noqa: B008 - frozen
        flush_interval_ms: int = 200,
        core: int | None = None,
        profile: ProfileName = "full",
        until_drained: bool = False,
    ) -> None:
        self.device = device
        self.spool_dir = folder / "spool"
        self._folder = folder
        self._core = core
        self._process: subprocess.Popen[bytes] | None = None
        identity = broker.identity(device)
        config = AgentConfig(
            device=device,
            shard=SHARD,
            mqtt=MqttConfig(HOST, broker.port, str(identity.ca_file), str(identity.cert_file), str(identity.key_file)),
            bundle_dir=str(bundle_dir),
            spool_dir=str(self.spool_dir),
            status_file=str(folder / "status.json"),
            sources=sources,
            spool=spool,
            flush_interval_ms=flush_interval_ms,
            until_drained=until_drained,
            profile=profile,
        )
        (folder / "agent.json").write_bytes(msgspec.json.encode(config))

    @property
    def pid(self) -> int:
        """The running process."""
        assert self._process is not None
        return self._process.pid

    def start(self, within: tuple[str, ...] = ()) -> float:
        """Start it, by a command that ends in running what follows it if one is given; return when, Unix time in s."""
        (self._folder / "status.json").unlink(missing_ok=True)
        started_s = time.time()
        with (self._folder / "agent.log").open("ab") as log:
            command = [str(edge_python()), "-m", "edge_agent", "--config", str(self._folder / "agent.json")]
            self._process = subprocess.Popen(
                [*within, *command],
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=repo_root(),
                env=os.environ | AGENT_ENVIRONMENT,
            )
        if self._core is not None:
            pin(self._process.pid, self._core)
        return started_s

    def report(self) -> Report | None:
        """Return its newest status; None before the first. Raises OperatorMustActError when it has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise OperatorMustActError(f"agent {self.device} ended with {self._process.returncode}: {self._log_tail()}")
        path = self._folder / "status.json"
        return msgspec.json.decode(path.read_bytes(), type=Report) if path.exists() else None

    def observed(self, stream: str) -> int:
        """Return how many events of a stream its spool accounts for."""
        found = self.report()
        sums = found.streams.get(stream) if found is not None else None
        return sums.observed if sums is not None else 0

    def pss_mb(self) -> float:
        """Return its proportional set size, in MB of 10^6 bytes."""
        return float(psutil.Process(self.pid).memory_full_info().pss) / 1e6

    def cpu_s(self) -> float:
        """Return its processor time so far."""
        times: Any = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def end(self, within_s: float) -> tuple[int, Report | None]:
        """Wait until it ends by itself; return its exit code and last status. Raises OperatorMustActError."""
        assert self._process is not None
        try:
            code = self._process.wait(within_s)
        except subprocess.TimeoutExpired as error:
            raise OperatorMustActError(
                f"agent {self.device}: expected it to be drained within {within_s:.0f} s: {self._log_tail()}"
            ) from error
        path = self._folder / "status.json"
        return code, msgspec.json.decode(path.read_bytes(), type=Report) if path.exists() else None

    def stop(self) -> None:
        """End it as its starter would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with kill -9."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(ENDS_WITHIN_S)

    def _log_tail(self) -> str:
        log = self._folder / "agent.log"
        return log.read_text()[-LOG_TAIL_CHARS:] if log.exists() else ""

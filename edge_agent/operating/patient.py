"""The device that is looked at."""

from pathlib import Path

from msgspec import Struct

from edge_agent.adapters.disk import LOCK_FILE
from edge_agent.app import KEY_FILE
from edge_agent.config import AgentConfig
from edge_agent.errors import ConfigError
from edge_agent.operating import processes
from edge_agent.operating.status import read_report


class Patient(Struct, frozen=True):
    """What is looked at. `pid` is of the agent that runs, None when none does."""

    config: AgentConfig
    pid: int | None
    now_ms: int

    @property
    def spool_dir(self) -> Path:
        """The spool's folder."""
        return Path(self.config.spool_dir)

    @property
    def key_file(self) -> Path:
        """The spool's key."""
        return Path(self.config.spool.key_file or self.spool_dir / KEY_FILE)


def patient_of(config: AgentConfig, now_ms: int) -> Patient:
    """Return the device of a configuration."""
    return Patient(config, _pid_of(config), now_ms)


def _pid_of(config: AgentConfig) -> int | None:
    """Return the process that has the spool; its status may be gone, and two logins would take turns."""
    try:
        report = read_report(Path(config.status_file))
    except ConfigError:
        report = None
    if report is not None and processes.runs(report.health.pid):
        return report.health.pid
    return processes.holder_of(Path(config.spool_dir) / LOCK_FILE)

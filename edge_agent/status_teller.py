"""Who is told how the agent fares, once a second: the status file, the service manager, the log."""

import logging
import os
from pathlib import Path

import msgspec

from edge_agent.adapters.service_manager import ServiceManager
from edge_agent.logs import BoundedHandler
from edge_agent.report import Report

_log = logging.getLogger(__name__)


class StatusTeller:
    """Tells them. A status that cannot be written, as on a full disk, is logged: the agent goes on."""

    def __init__(self, file: Path, manager: ServiceManager, log: BoundedHandler | None) -> None:
        self._file, self._manager, self._log = file, manager, log

    def tell(self, report: Report) -> None:
        """Write and say what is so now."""
        try:
            write_status(self._file, report)
        except OSError as error:
            _log.warning(
                "status %s cannot be written: %s: free the disk, or name another file", self._file, error.strerror
            )
        self._manager.alive(line_of(report))
        if self._log is not None:
            self._log.tick()

    def close(self) -> None:
        """The agent ends."""
        self._manager.stopping()
        self._manager.close()


def write_status(path: Path, report: Report) -> None:
    """Replace the status file. Raises OSError."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(msgspec.json.encode(report))
    os.replace(temporary, path)


def line_of(report: Report) -> str:
    """Return the most important in one line."""
    waits_s = report.health.lag_ms / 1_000
    step = "" if report.given_up == "none" else f", disk short: {report.given_up}"
    return f"link {report.link}, {report.spool_bytes} bytes to send, oldest waits {waits_s:.0f} s{step}"

"""What a lakehouse process says about itself: one JSON document beside its configuration, replaced once a second."""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec
from msgspec import Struct

STATUS_INTERVAL_S: Final = 1.0  # seconds; a status page shows a stall within two of them
# Durations of a table in the file. It is read once a second at least and a table's commits are a fourth of a second
# apart: none is missed.
COMMITS_SHOWN_MAX: Final = 16

_log = logging.getLogger(__name__)


class IngestStatus(Struct):
    """Counters since the process started, and the state at `updated_at_ms`."""

    pid: int
    ready: bool = False
    rounds: int = 0
    batches: int = 0
    rows: dict[str, int] = {}  # rows committed, by contract
    refused_rows: int = 0
    hints: dict[str, int] = {}  # rows outside of a list that is a hint, by contract.field.known_values
    dead: dict[str, int] = {}  # dead letters, by reason code
    lag: int = 0  # messages between the last commit and the end of the log
    last_plan_ms: float = 0.0
    last_commit_ms: float = 0.0
    commits: dict[str, int] = {}  # by contract
    recent_commits_ms: dict[str, list[float]] = {}  # by contract, the newest last, COMMITS_SHOWN_MAX at most
    last_round_at_ms: int = 0
    recoveries: int = 0
    parked: Mapping[str, str] = {}  # why a table is left alone until its store or catalog answers, by contract
    last_error: str = ""
    last_error_at_ms: int = 0
    updated_at_ms: int = 0

    def note_commit(self, contract: str, took_ms: float) -> None:
        """Take a commit's duration. The mappings are new ones: another thread may be writing the old ones down."""
        self.last_commit_ms = took_ms
        recent = [*self.recent_commits_ms.get(contract, ()), round(took_ms, 2)][-COMMITS_SHOWN_MAX:]
        self.recent_commits_ms = self.recent_commits_ms | {contract: recent}
        self.commits = self.commits | {contract: self.commits.get(contract, 0) + 1}


class TableFigures(Struct, frozen=True):
    """What a table consists of, as maintenance last saw it."""

    tail_files: int = 0
    tail_bytes: int = 0
    history_files: int = 0
    history_bytes: int = 0
    manifests: int = 0
    snapshots: int = 0


class MaintenanceStatus(Struct):
    """Counters since the process started, by table where there is a mapping; `tables` are states."""

    pid: int
    ready: bool = False
    passes: int = 0
    tables: dict[str, TableFigures] = {}
    compactions: dict[str, int] = {}
    files_merged: dict[str, int] = {}
    bytes_rewritten: dict[str, int] = {}
    rows_ended: dict[str, int] = {}  # rows removed because their retention is over
    files_waiting: dict[str, int] = {}  # files that nothing needs, kept for readers that may still use them
    files_deleted: dict[str, int] = {}
    conflicts: int = 0  # commits of ours that a writer won
    last_pass_ms: float = 0.0
    last_error: str = ""
    last_error_at_ms: int = 0
    updated_at_ms: int = 0


class QualityStatus(Struct):
    """Counters since the process started; `not_met` are the rules of each table's newest look that are no hints."""

    pid: int
    ready: bool = False
    looks: int = 0
    whole_looks: int = 0
    rows_committed: int = 0
    rows_checked: int = 0
    not_met: dict[str, tuple[str, ...]] = {}
    broken_files: dict[str, str] = {}  # analysts' files that cannot be followed, with the reason
    last_pass_ms: float = 0.0
    memory_mb: float = 0.0
    last_error: str = ""
    last_error_at_ms: int = 0
    updated_at_ms: int = 0


class Status(Protocol):
    """What every status says: when it was written."""

    updated_at_ms: int


class StatusFile:
    """Writes a status once a second from a thread of its own, so that a stall shows as figures that stand still."""

    def __init__(self, path: Path, status: Status, now_ms: Callable[[], int]) -> None:
        self._path, self._status, self._now_ms = path, status, now_ms
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write a last time and end."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(STATUS_INTERVAL_S):
            self._write()
        self._write()

    def _write(self) -> None:
        self._status.updated_at_ms = self._now_ms()
        partial = self._path.with_name(f"{self._path.name}.partial")
        try:
            partial.write_bytes(msgspec.json.encode(self._status))
            os.replace(partial, self._path)
        except OSError as error:
            _log.warning("status file %s cannot be written: %s: free space or correct the folder", self._path, error)

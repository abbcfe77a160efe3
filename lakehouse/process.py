"""What the lakehouse processes share: reading the configuration, signals, the ready file, exit codes."""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from contracts.errors import OperatorMustActError
from lakehouse.errors import ConfigError
from lakehouse.status import Status, StatusFile

EXIT_OPERATOR_MUST_ACT: Final = 2
READY_CHECK_S: Final = 0.1  # seconds between two looks at whether the process is ready

Config = TypeVar("Config")

_log = logging.getLogger(__name__)


class WallClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()


def read_config(path: Path, kind: type[Config]) -> Config:
    """Read a process's configuration file. Raises ConfigError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise ConfigError(f"configuration {path}: cannot be read: {error.strerror}: name an existing file") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"configuration {path}: expected a lakehouse configuration in JSON: {error}") from error


class ReadyFile:
    """Mirrors an event as a file that holds our pid."""

    def __init__(self, path: Path, ready: threading.Event) -> None:
        self._path, self._ready = path, ready
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ready", daemon=True)
        path.unlink(missing_ok=True)

    def start(self) -> None:
        """Begin to follow the event."""
        self._thread.start()

    def stop(self) -> None:
        """End, and remove the file."""
        self._stop.set()
        self._thread.join()
        self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        shown = False
        while not self._stop.wait(READY_CHECK_S):
            if self._ready.is_set() != shown:
                shown = self._ready.is_set()
                if shown:
                    self._path.write_text(f"{os.getpid()}\n")
                else:
                    self._path.unlink(missing_ok=True)


def serve(
    program: str,
    purpose: str,
    work: Callable[[Config, Path, threading.Event, threading.Event], None],
    arguments: list[str] | None,
    kind: type[Config],
) -> int:
    """Parse the command line, then work until SIGTERM or SIGINT; return the exit code.

    `work(config, config_path, stop, ready)` returns when `stop` is set. Exit code 2: a person must act, the last log
    line says how.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=purpose,
        epilog=f"example: python -m {program} --config .fieldlake/conf/lakehouse.json",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="lakehouse configuration, JSON")
    path: Path = parser.parse_args(arguments).config
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("pyiceberg").setLevel(logging.ERROR)
    stop, ready = threading.Event(), threading.Event()
    try:
        config = read_config(path, kind)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: stop.set())
        work(config, path, stop, ready)
    except OperatorMustActError as error:
        _log.error("%s", error)
        return EXIT_OPERATOR_MUST_ACT
    return 0


@contextmanager
def shown(config: Path, status: Status, ready: threading.Event) -> Iterator[None]:
    """Have a status and whether the process is ready lie beside its configuration, for as long as this lasts."""
    files = (
        StatusFile(beside(config, "status.json"), status, WallClock().now_ms),
        ReadyFile(beside(config, "ready"), ready),
    )
    for file in files:
        file.start()
    try:
        yield
    finally:
        for file in reversed(files):
            file.stop()


def beside(config: Path, ending: str) -> Path:
    """Return the path of a file next to the configuration."""
    return config.with_name(f"{config.name}.{ending}")

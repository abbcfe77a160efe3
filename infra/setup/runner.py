"""Runs steps side by side, each when those it waits for have ended, and tells how they go."""

import errno
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Final, TextIO

from infra.setup.errors import SetupError
from infra.setup.plan import Step
from infra.setup.steps import Action

# How often the running steps are listed: often enough to see that something moves, rare enough for a log file.
TERMINAL_REFRESH_S: Final = 0.5
LOG_REFRESH_S: Final = 10.0


class Board:
    """Prints one line per finished step, and between them what is running. Safe from several threads."""

    def __init__(self, out: TextIO, now_s: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._now_s = now_s
        self._started_s = now_s()
        self._running: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()
        self._rewrites = out.isatty()
        self._listed_s = self._started_s

    def begin(self, name: str) -> None:
        """Say that a step has begun."""
        with self._lock:
            self._running[name] = (self._now_s(), "")
            if not self._rewrites:
                self._print(f"{name}: started")

    def detail(self, name: str, text: str) -> None:
        """Note what a running step is at."""
        with self._lock:
            if name in self._running:
                self._running[name] = (self._running[name][0], text)

    def end(self, name: str, outcome: str) -> None:
        """Say how a step ended."""
        with self._lock:
            began_s, _ = self._running.pop(name, (self._now_s(), ""))
            self._print(f"{name}: {outcome} ({self._now_s() - began_s:.1f} s)")

    def show_running(self) -> None:
        """List the running steps, unless that was done just now."""
        with self._lock:
            refresh_s = TERMINAL_REFRESH_S if self._rewrites else LOG_REFRESH_S
            if not self._running or self._now_s() - self._listed_s < refresh_s:
                return
            self._listed_s = self._now_s()
            text = ", ".join(f"{name} {detail}".strip()[:60] for name, (_, detail) in self._running.items())
            self._print(f"... {text}", stays=not self._rewrites)

    def _print(self, text: str, stays: bool = True) -> None:
        line = f"[{self._now_s() - self._started_s:6.1f} s] {text}"
        if self._rewrites:
            # Clears the line first; the running steps stay on one line, or rewriting it would leave traces.
            self._out.write(f"\r\x1b[2K{line if stays else line[:118]}" + ("\n" if stays else ""))
        else:
            self._out.write(f"{line}\n")
        self._out.flush()


def run(
    steps: tuple[Step, ...], actions: Mapping[str, Action], board: Board, stop: Callable[[], None]
) -> tuple[str, ...]:
    """Run `steps`, ordered so that each comes later than those it waits for; return the names of those that failed.

    A failed step takes only those down that wait for it: what the others do is finished and kept.
    On an interrupt `stop` must end what the actions wait for.
    """
    futures: dict[str, Future[bool]] = {}
    with ThreadPoolExecutor(max(1, len(steps))) as pool:
        for step in steps:
            waits_for = {name: futures[name] for name in step.after if name in futures}
            futures[step.name] = pool.submit(_run_one, step, actions[step.name], waits_for, board)
        pending = set(futures.values())
        try:
            while pending:
                _, pending = wait(pending, timeout=TERMINAL_REFRESH_S, return_when=FIRST_COMPLETED)
                board.show_running()
        except BaseException:
            stop()
            raise
    return tuple(name for name, future in futures.items() if not future.result())


def _run_one(step: Step, action: Action, waits_for: Mapping[str, Future[bool]], board: Board) -> bool:
    failed = [name for name, future in waits_for.items() if not future.result()]
    if failed:
        board.end(step.name, f"not begun, it needs {' and '.join(failed)}")
        return False
    board.begin(step.name)
    try:
        action(lambda text: board.detail(step.name, text))
    except SetupError as error:
        board.end(step.name, f"FAILED: {error}")
        return False
    except OSError as error:
        board.end(step.name, f"FAILED: {explain(error)}")
        return False
    board.end(step.name, "done")
    return True


def explain(error: OSError) -> str:
    """Return one line for what the operating system refused."""
    if error.errno == errno.ENOSPC:
        return f"the disk is full while writing {error.filename or 'a file'}: make room and run again"
    return f"{error.strerror or error}: {error.filename or 'no file named'}: check its owner and mode, and run again"

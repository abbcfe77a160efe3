"""The updating process from the agent's side: started, looked after without waiting, ended when it takes too long."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from contracts.malformed import MALFORMED
from edge_agent.core.updates.updates import Verdict

if TYPE_CHECKING:
    import subprocess

RUN_S_MAX: Final = 180.0  # s; its own deadline for everything it fetches is 120 s, the rest is for loading a model
VERDICT_BYTES_MAX: Final = 65_536  # bytes; a pipe holds as many, so the process never waits for the agent to read
LOG_TAIL_CHARS: Final = 300  # of what it said on standard error, quoted when it gave no verdict


class UpdatingProcess:
    """At most one run at a time. No method waits for the process."""

    def __init__(self, command: tuple[str, ...], prepare: Callable[[], None] = lambda: None) -> None:
        """`command` is the process without its options: python, `-m edge_agent.updating --config FILE`.

        `prepare` writes that file, before every run: a device's certificate is another one after each renewal.
        """
        self._command = command
        self._prepare = prepare
        self._process: subprocess.Popen[bytes] | None = None
        self._until_s = 0.0

    @property
    def runs(self) -> bool:
        """Whether a run was started and its verdict not taken yet."""
        return self._process is not None

    def start(self, now_s: float, announced: int = 0, known_time_ms: int = 0) -> None:
        """Begin a run. Raises OSError when there is no memory for a process, or no room for its configuration."""
        import subprocess

        if self._process is not None:
            return
        self._prepare()
        options = ("--announced", str(announced), "--known-time-ms", str(known_time_ms))
        self._process = subprocess.Popen(
            [*self._command, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._until_s = now_s + RUN_S_MAX

    def take(self, now_s: float) -> Verdict | None:
        """Return the verdict of a run that has ended; None while it runs, or when none was started."""
        process = self._process
        if process is None or (process.poll() is None and now_s < self._until_s):
            return None
        is_late = process.poll() is None
        process.kill()
        out, said = process.communicate()
        self._process = None
        try:
            return msgspec.json.decode(out[:VERDICT_BYTES_MAX], type=Verdict)
        except MALFORMED:
            tail = said.decode(errors="replace")[-LOG_TAIL_CHARS:].strip()
            why = f"no verdict within {RUN_S_MAX:.0f} s" if is_late else f"exit code {process.returncode}: {tail}"
            return Verdict("failed", reason="process", detail=f"updating process: {why}")

    def close(self) -> None:
        """End a run that goes on; the next one begins where it stopped."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

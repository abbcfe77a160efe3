"""Looking for bundles beside the agent's loop: announcements and time in, verdicts out, one log line each."""

import logging
from collections.abc import Callable
from typing import Final, Protocol

from contracts import releases
from contracts.errors import ReleaseError
from edge_agent.core.updates import updates
from edge_agent.core.updates.updates import Verdict, Watch

LOOK_S: Final = 0.5  # s between two looks at a run that goes on

_log = logging.getLogger(__name__)


class Process(Protocol):
    """The updating process; see `adapters.updating_process`."""

    @property
    def runs(self) -> bool:
        """Whether a run was started and its verdict not taken yet."""
        ...

    def start(self, now_s: float, announced: int = 0, known_time_ms: int = 0) -> None:
        """Begin a run. Raises OSError."""
        ...

    def take(self, now_s: float) -> Verdict | None:
        """Return the verdict of a run that has ended."""
        ...

    def close(self) -> None:
        """End a run that goes on."""
        ...


class BundleUpdates:
    """Owns the process and knows when it is due. `random` returns numbers in [0, 1). No method waits."""

    def __init__(self, process: Process, random: Callable[[], float], now_s: float) -> None:
        self._process, self._random = process, random
        self._watch = Watch(due_s=now_s)
        self._last: Verdict | None = None

    @property
    def last(self) -> Verdict | None:
        """The newest verdict, for the status; None before the first."""
        return self._last

    def heard(self, payload: bytes, now_s: float) -> None:
        """Take the retained message on `fl/v1/down/{device}/bundle`; one that is none is logged and nothing else."""
        try:
            version = releases.decode(payload).timestamp_version
        except ReleaseError as error:
            _log.warning("announcement_refused why=%r", str(error))
            return
        self._watch = updates.announced(self._watch, version, now_s, self._random())

    def due_s(self, now_s: float) -> float:
        """When `turn` wants to be called next, on the caller's clock."""
        return now_s + LOOK_S if self._process.runs else self._watch.due_s

    def turn(self, now_s: float, known_time_ms: int = 0) -> Verdict | None:
        """Start a run that is due, or return the verdict of one that has ended.

        `known_time_ms` is a Unix time that has surely passed, from whoever is trusted to know it.
        """
        if self._process.runs:
            verdict = self._process.take(now_s)
            return self._conclude(verdict, now_s) if verdict is not None else None
        if now_s < self._watch.due_s:
            return None
        try:
            self._process.start(now_s, self._watch.announced, known_time_ms)
        except OSError as error:
            return self._conclude(Verdict("failed", reason="process", detail=f"updating process: {error}"), now_s)
        return None

    def close(self) -> None:
        """End a run that goes on; the next one begins where it stopped."""
        self._process.close()

    def _conclude(self, verdict: Verdict, now_s: float) -> Verdict:
        self._watch = updates.concluded(self._watch, verdict, now_s, self._random())
        if verdict.outcome in ("refused", "failed"):
            _log.warning(
                "bundle_%s release=%s reason=%s detail=%r",
                verdict.outcome,
                verdict.release,
                verdict.reason,
                verdict.detail,
            )
        elif verdict.outcome != "current":
            _log.info("bundle_%s release=%s fetched_bytes=%d", verdict.outcome, verdict.release, verdict.fetched_bytes)
        self._last = verdict
        return verdict

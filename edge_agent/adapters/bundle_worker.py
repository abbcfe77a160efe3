"""A thread for what a bundle asks of disk and processor, so that the loop goes on with live events."""

import threading
from collections.abc import Callable

from edge_agent.bundle_ports import Done
from edge_agent.core.intake import Parts


class ThreadWorker:
    """Implements `bundle_ports.Worker`. `wake` lets the loop look."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._thread: threading.Thread | None = None
        self._done: Done | None = None

    @property
    def works(self) -> bool:
        """Whether a job was begun and what came of it not taken yet."""
        return self._thread is not None

    def begin(self, job: Callable[[], Parts | None]) -> None:
        """Begin a job. One that the process ends before is done again after the next start, or not needed any more."""
        self._thread = threading.Thread(target=self._run, args=(job,), name="bundle", daemon=True)
        self._thread.start()

    def take(self) -> Done | None:
        """Return what came of a job; None while it goes on, or when there is none."""
        done, self._done = self._done, None
        if done is not None:
            self._thread = None
        return done

    def _run(self, job: Callable[[], Parts | None]) -> None:
        try:
            self._done = Done(job())
        except Exception as error:  # noqa: BLE001 - model runtimes raise classes of their own, without a common base
            self._done = Done(error=error)
        self._wake()

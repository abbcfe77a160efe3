"""A thread for what a bundle asks of disk and processor, so that the loop goes on with live events."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

from edge_agent.bundle_ports import Done
from edge_agent.core.plan import Parts


class ThreadWorker:
    """Implements `bundle_ports.Worker`. `wake` lets the loop look.

    Its one thread waits for jobs: to start one for each would hold the loop up until that thread has had its turn.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._jobs: SimpleQueue[Callable[[], Parts | None]] = SimpleQueue()
        self._works = False
        self._done: Done | None = None
        threading.Thread(target=self._run, name="bundle", daemon=True).start()

    @property
    def works(self) -> bool:
        """Whether a job was begun and what came of it not taken yet."""
        return self._works

    def begin(self, job: Callable[[], Parts | None]) -> None:
        """Begin a job. One that the process ends before is done again after the next start, or not needed any more."""
        self._works = True
        self._jobs.put(job)

    def take(self) -> Done | None:
        """Return what came of a job; None while it goes on, or when there is none."""
        done, self._done = self._done, None
        if done is not None:
            self._works = False
        return done

    def _run(self) -> None:
        while True:
            self._done = _done(self._jobs.get())
            self._wake()


def _done(job: Callable[[], Parts | None]) -> Done:
    try:
        return Done(job())
    except Exception as error:  # noqa: BLE001 - model runtimes raise classes of their own, without a common base
        return Done(error=error)

"""The steps of a run: named, timed, visible while they last."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Steps:
    """Seconds per step, in order; tells when one begins and ends."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.seconds: dict[str, float] = {}
        self.tell = tell
        self._began = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first moment of the run."""
        return time.monotonic() - self._began

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what happens inside; a step that fails is timed too."""
        self.tell(f"[{self.elapsed_s:6.1f} s] {name} ...")
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - began, 1)
            self.tell(f"[{self.elapsed_s:6.1f} s] {name}: {self.seconds[name]} s")

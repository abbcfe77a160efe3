"""What trying and swapping bundles asks of the device: a folder of releases, and a thread for what takes time."""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from edge_agent.core.plan import Parts
from edge_agent.core.updates.rollout import Rollout


class Done(Struct, frozen=True):
    """What came of a job: what it made, if anything, or the error that it ended with."""

    parts: Parts | None = None
    error: Exception | None = None


class Worker(Protocol):
    """One job at a time beside the loop; see `adapters.bundle_worker`."""

    @property
    def works(self) -> bool:
        """Whether a job was begun and what came of it not taken yet."""
        ...

    def begin(self, job: Callable[[], Parts | None]) -> None:
        """Begin a job."""
        ...

    def take(self) -> Done | None:
        """Return what came of a job; None while it goes on, or when there is none."""
        ...


class Shelf(Protocol):
    """The device's bundles on disk; see `adapters.bundle_shelf`."""

    def active(self) -> int | None:
        """Return the release in force, None before the first."""
        ...

    def has(self, release: int) -> bool:
        """Say whether a release lies there, complete and checked."""
        ...

    def activate(self, release: int) -> None:
        """Put a release in force, in one step; it holds after a power cut. Raises OSError."""
        ...

    def refuse(self, release: int, why: str) -> None:
        """Remember not to try a release again, over power cuts. Raises OSError."""
        ...

    def refusals(self) -> dict[int, str]:
        """Return the releases that this agent does not take, and why."""
        ...

    def rollout(self) -> Rollout:
        """Return what was noted last."""
        ...

    def note(self, rollout: Rollout) -> None:
        """Write down how the rollout stands; it holds after a power cut. Raises OSError."""
        ...

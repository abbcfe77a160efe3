"""The device's folder of bundles as the agent uses it: what is in force, what was refused, how the rollout stands.

rollout.json       how the newest release fares, a `core.updates.rollout.Rollout`, beside what `bundle_versions` names
"""

import logging
from pathlib import Path
from typing import Final

import msgspec

from contracts.malformed import MALFORMED
from edge_agent.adapters import bundle_versions
from edge_agent.adapters.bundle_versions import Refusal
from edge_agent.core.updates.rollout import Rollout
from edge_agent.version import AGENT_VERSION

ROLLOUT: Final = "rollout.json"
REFUSED_BY_TRIAL: Final = "trial"  # the reason's code beside those of `edge_agent.updating.errors`

_log = logging.getLogger(__name__)


class BundleShelf:
    """Implements `bundle_ports.Shelf`."""

    def __init__(self, folder: Path, agent_version: str = AGENT_VERSION) -> None:
        self.folder = folder
        self._agent_version = agent_version

    def active(self) -> int | None:
        """Return the release in force, None before the first."""
        return bundle_versions.active(self.folder)

    def has(self, release: int) -> bool:
        """Say whether a release lies there, complete and checked."""
        return bundle_versions.folder_of(self.folder, release).is_dir()

    def activate(self, release: int) -> None:
        """Put a release in force, in one step; it holds after a power cut."""
        bundle_versions.activate(self.folder, release)

    def refuse(self, release: int, why: str) -> None:
        """Remember not to try a release again, over power cuts."""
        bundle_versions.refuse(self.folder, Refusal(release, self._agent_version, REFUSED_BY_TRIAL, why))

    def refusals(self) -> dict[int, str]:
        """Return the releases that this agent does not take, and why."""
        return bundle_versions.refusals(self.folder, self._agent_version)

    def rollout(self) -> Rollout:
        """Return what was noted last; one that cannot be read is forgotten: the bundle in force stays in force."""
        try:
            return msgspec.json.decode((self.folder / ROLLOUT).read_bytes(), type=Rollout)
        except FileNotFoundError:
            return Rollout()
        except (*MALFORMED, OSError) as error:
            _log.warning("rollout_forgotten file=%s why=%r", self.folder / ROLLOUT, str(error))
            return Rollout()

    def note(self, rollout: Rollout) -> None:
        """Write down how the rollout stands; it holds after a power cut."""
        pending = self.folder / f"{ROLLOUT}.next"
        bundle_versions.write_durably(pending, msgspec.json.encode(rollout))
        pending.replace(self.folder / ROLLOUT)
        bundle_versions.sync_folder(self.folder)

"""Wiring: a configuration to the bundle that a device begins with, and to what brings it others."""

import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from contracts.bundle import Bundle
from contracts.ports import Clock
from edge_agent import bundle_start
from edge_agent.adapters.bundle_loading import BundleLoading
from edge_agent.adapters.bundle_shelf import BundleShelf
from edge_agent.adapters.bundle_worker import ThreadWorker
from edge_agent.adapters.process import pss_mb
from edge_agent.adapters.updating_process import UpdatingProcess
from edge_agent.bundle_start import Begun
from edge_agent.bundle_swaps import BundleSwaps
from edge_agent.bundle_updates import BundleUpdates
from edge_agent.config import AgentConfig, RepositoryBundles, contracts_of
from edge_agent.core.intake import Intake
from edge_agent.core.plan import Plan
from edge_agent.core.updates.rollout import Rollout

if TYPE_CHECKING:
    from types import FrameType

UPDATING_CONFIG: Final = "updating.json"  # in the folder of bundles


class RepositorySupply:
    """The device's folder of bundles, and what looks for newer ones beside the loop.

    `plan_of` makes a plan of a bundle and its folder; `credentials` are the files of the present certificate and key.
    """

    def __init__(
        self,
        config: AgentConfig,
        bundles: RepositoryBundles,
        plan_of: Callable[[Bundle, Path], Plan],
        credentials: Callable[[], tuple[str, str]],
        clock: Clock,
        random: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._config, self._bundles, self._credentials, self._clock = config, bundles, credentials, clock
        self._folder = Path(bundles.bundles_dir)
        self._shelf = BundleShelf(self._folder)
        command = (sys.executable, "-m", "edge_agent.updating", "--config", str(self._folder / UPDATING_CONFIG))
        self._updates = BundleUpdates(UpdatingProcess(command, self._prepare), random, clock.monotonic_s())
        self._loading = BundleLoading(
            self._folder,
            {name for source in config.sources for name in contracts_of(source)},
            plan_of,
        )
        self._worker = ThreadWorker(wake)
        self._rollout = Rollout()

    def begin(self, decided_by: int) -> Begun | None:
        """Return what to begin with, after waiting for a first release; None when told to stop meanwhile.

        `decided_by` is the release that the spool's newest record names, 0 for none.

        Raises OperatorMustActError when the release in force cannot be followed.
        """
        stopped = threading.Event()

        def stop(_number: int, _frame: "FrameType | None") -> None:
            stopped.set()

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            if not bundle_start.await_first(
                self._updates, self._shelf, self._clock, lambda pause_s: not stopped.wait(pause_s)
            ):
                return None
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if stopped.is_set():
                self._updates.close()
        begun = bundle_start.begin(self._shelf, self._loading, decided_by, self._clock.monotonic_s())
        self._rollout = begun.rollout
        return begun

    def swaps(self, intake: Intake) -> BundleSwaps:
        """Return what tries and swaps bundles in the loop."""
        return BundleSwaps(
            self._rollout, self._updates, self._shelf, self._loading.parts, self._worker, intake, self._clock, pss_mb
        )

    def _prepare(self) -> None:
        """Write the updating process's configuration. Raises OSError."""
        cert_file, key_file = self._credentials()
        content = {
            "device": self._config.device,
            "group": self._bundles.group,
            "url": self._bundles.url,
            "ca_file": self._bundles.ca_file or self._config.mqtt.ca_file,
            "cert_file": cert_file,
            "key_file": key_file,
            "root_file": self._bundles.root_file,
            "bundles_dir": str(self._folder),
            "profile": self._config.profile,
        }
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._folder / UPDATING_CONFIG).write_bytes(msgspec.json.encode(content))

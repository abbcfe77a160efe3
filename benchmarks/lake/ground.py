"""A copy of the stack, or of some of its parts, for the time of a measurement."""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from msgspec import Struct

from contracts.contract import Contract
from infra.bundles.documents import read_contracts
from infra.launcher.endpoints import Endpoints, endpoints_file, read_endpoints
from infra.launcher.launcher import Launcher
from infra.launcher.model import Context
from infra.launcher.parts import kafka, postgres, services, store_a, store_b, trino
from infra.launcher.ports import free_port_base
from infra.launcher.settings import StackSettings
from lakehouse.config import LakeConfig
from lakehouse.publish import publish_contracts
from lakehouse.rows import QUARANTINE

UNDER_INGEST: Final = (kafka.NAME, postgres.NAME, store_a.NAME, store_b.NAME)
TRINO: Final = trino.NAME

Tell = Callable[[str], None]


class Ground(Struct, frozen=True):
    """What runs, and where a measurement may write."""

    folder: Path
    settings: StackSettings
    context: Context
    endpoints: Endpoints
    tell: Tell

    @property
    def lake_config(self) -> LakeConfig:
        """What ingest and maintenance are told."""
        return services.lake_config(self.context)

    def publish(self, *contracts: Contract) -> None:
        """Tell the lake of contracts, and of the quarantine: without it nothing is taken."""
        shipped = [one for one in read_contracts() if one.id == QUARANTINE]
        publish_contracts(self.endpoints.kafka.bootstrap, (*shipped, *contracts), {})


@contextmanager
def ground(tell: Tell, parts: Iterable[str] | None = None) -> Iterator[Ground]:
    """Start a stack of its own, all of it or some parts and what they need; stop it and remove its files at the end."""
    with TemporaryDirectory(prefix="fieldlake-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        settings = StackSettings(state_dir=folder / "state", port_base=free_port_base(random.Random()))
        launcher = Launcher(settings)
        tell(f"starting {'a stack' if parts is None else ', '.join(parts)} ...")
        try:
            launcher.up(parts)
            endpoints = read_endpoints(endpoints_file(settings))
            yield Ground(folder, settings, launcher.context(), endpoints, tell)
        finally:
            tell("stopping ...")
            launcher.down()

"""How a device of the local stack fetches its bundles."""

from pathlib import Path

from contracts.releases import DEFAULT_GROUP
from edge_agent.adapters.identity import Generation
from edge_agent.updating.config import UpdatingConfig
from infra.launcher.endpoints import Endpoints


def updating_config(
    endpoints: Endpoints, device: str, identity: Generation, bundles_dir: Path, group: str = DEFAULT_GROUP
) -> UpdatingConfig:
    """Return the configuration of a device's updating process."""
    return UpdatingConfig(
        device=device,
        group=group,
        url=endpoints.bundles.url,
        ca_file=endpoints.bundles.ca_file,
        cert_file=identity.cert_file,
        key_file=identity.key_file,
        root_file=endpoints.bundles.root_file,
        bundles_dir=str(bundles_dir),
    )

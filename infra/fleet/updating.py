"""How a device of the local stack fetches its bundles."""

from pathlib import Path

from contracts.releases import DEFAULT_GROUP
from edge_agent.updating.config import UpdatingConfig
from infra.launcher.certificates import CertificatePaths
from infra.launcher.endpoints import Endpoints


def updating_config(
    endpoints: Endpoints, device: str, certificate: CertificatePaths, bundles_dir: Path, group: str = DEFAULT_GROUP
) -> UpdatingConfig:
    """Return the configuration of a device's updating process."""
    return UpdatingConfig(
        device=device,
        group=group,
        url=endpoints.bundles.url,
        ca_file=endpoints.bundles.ca_file,
        cert_file=str(certificate.certificate_file),
        key_file=str(certificate.key_file),
        root_file=endpoints.bundles.root_file,
        bundles_dir=str(bundles_dir),
    )

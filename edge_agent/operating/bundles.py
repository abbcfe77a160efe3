"""Which bundle a device runs, whether it has one for good or follows a repository."""

from pathlib import Path

from edge_agent.adapters import bundle_versions
from edge_agent.config import AgentConfig
from edge_agent.errors import BundleError


def folder_in_force(config: AgentConfig) -> Path:
    """Return the folder of the bundle in force. Raises BundleError where no release has come yet."""
    if config.bundle_dir is not None:
        return Path(config.bundle_dir)
    assert config.bundles is not None
    folder = Path(config.bundles.bundles_dir)
    release = bundle_versions.active(folder)
    if release is None:
        raise BundleError(
            f"bundles {folder}: no release is in force: the agent fetches the first when it starts; look at "
            f"{config.bundles.url} and its log if it does not"
        )
    return bundle_versions.folder_of(folder, release)

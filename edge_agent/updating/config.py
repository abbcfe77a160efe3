"""The configuration of the updating process: one JSON file, parsed once."""

from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from contracts import releases, topics
from contracts.errors import ReleaseError
from edge_agent.config import ProfileName
from edge_agent.updating.errors import UpdatingConfigError

RUN_S: Final = 120.0  # s; a bundle of 2 MB over 20 KB/s, the slowest link we count on


class UpdatingConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where bundles come from, and who asks.

    `root_file` is the repository's root that the device was given when it was set up; `url` the server's address
    without a path; the certificate is the device's own. `bundles_dir` holds all that is kept of bundles. `profile` is
    the agent's: a bundle must load in it.
    """

    device: str
    group: str
    url: str
    ca_file: str
    cert_file: str
    key_file: str
    root_file: str
    bundles_dir: str
    run_s: float = RUN_S
    profile: ProfileName = "full"


def load(path: Path) -> UpdatingConfig:
    """Read and check a configuration file. Raises UpdatingConfigError."""
    try:
        config = msgspec.json.decode(path.read_bytes(), type=UpdatingConfig)
        releases.check_group(config.group)
    except OSError as error:
        raise UpdatingConfigError(f"configuration {path}: expected a readable file: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, ReleaseError) as error:
        raise UpdatingConfigError(f"configuration {path}: {error}: correct it there") from error
    if not topics.is_origin(config.device) or not config.url.startswith("https://") or not 0 < config.run_s < 86_400:
        raise UpdatingConfigError(
            f"configuration {path}: expected a device name, an https:// url and run_s of up to a day, "
            f"found {config.device!r}, {config.url!r}, {config.run_s}"
        )
    return config

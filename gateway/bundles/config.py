"""Configuration of the bundle server, parsed once from the file named on the command line."""

from pathlib import Path

import msgspec
from msgspec import Struct

from gateway.config import MqttConfig
from gateway.errors import GatewayConfigError


class BundlesConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where to listen, whom to let in, what to serve, and the broker to announce on.

    `served_dir` is the repository's `served` folder. Devices show a certificate signed by `client_ca_file`.
    `groups_file` says which device belongs to which group, see `membership`; `seen_file` keeps which have asked.
    """

    host: str
    port: int
    tls_cert_file: str
    tls_key_file: str
    client_ca_file: str
    served_dir: str
    groups_file: str
    seen_file: str
    mqtt: MqttConfig


def read_config(path: Path) -> BundlesConfig:
    """Read the configuration file. Raises GatewayConfigError."""
    try:
        config = msgspec.json.decode(path.read_bytes(), type=BundlesConfig)
    except OSError as error:
        raise GatewayConfigError(
            f"configuration {path}: cannot be read: {error.strerror}: name an existing file"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise GatewayConfigError(f"configuration {path}: expected a bundle server's in JSON: {error}") from None
    needed = (config.tls_cert_file, config.tls_key_file, config.client_ca_file, config.mqtt.cert_file)
    for name in needed:
        if not Path(name).is_file():
            raise GatewayConfigError(f"configuration {path}: {name} does not exist: make the certificates first")
    return config

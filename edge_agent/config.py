"""The agent's configuration: one JSON file, parsed once."""

from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from contracts import topics
from edge_agent.errors import ConfigError

FLUSH_INTERVAL_MS: Final = 200  # ms; leaves 1,300 ms of the 1,500 ms from publish to visible for the lake
PORT_MAX: Final = 65_535


class MqttConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The broker and the certificate by which it knows the device. Paths are files in PEM form."""

    host: str
    port: int
    ca_file: str
    cert_file: str
    key_file: str


class SourceConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The file to replay: `.csv` with a header line, anything else as JSON lines. Rate 0 is as fast as it goes."""

    file: str
    contract: str
    rate_events_per_s: float = 0.0


class AgentConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a device agent is told. With `until_drained` it ends once the lake has all of the source."""

    device: str
    shard: int
    mqtt: MqttConfig
    bundle_dir: str
    spool_dir: str
    status_file: str
    source: SourceConfig
    flush_interval_ms: int = FLUSH_INTERVAL_MS
    until_drained: bool = False


def load(path: Path) -> AgentConfig:
    """Read and check a configuration file. Raises ConfigError."""
    try:
        config = msgspec.json.decode(path.read_bytes(), type=AgentConfig)
    except OSError as error:
        raise ConfigError(f"configuration {path}: expected a readable file: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"configuration {path}: {error}: correct it there") from error
    check(config, str(path))
    return config


def check(config: AgentConfig, label: str) -> None:
    """Raise ConfigError when a value is out of its range."""
    if not topics.is_origin(config.device):
        raise ConfigError(
            f"{label}: device {config.device!r}: expected 1 to {topics.ORIGIN_CHARS_MAX} letters, digits, -_."
        )
    if config.shard < 0 or not 0 < config.mqtt.port <= PORT_MAX:
        raise ConfigError(
            f"{label}: expected shard >= 0 and a port up to {PORT_MAX}, found {config.shard}, {config.mqtt.port}"
        )
    if config.flush_interval_ms < 1 or not 0 <= config.source.rate_events_per_s < float("inf"):
        raise ConfigError(f"{label}: expected flush_interval_ms >= 1 and rate_events_per_s >= 0")

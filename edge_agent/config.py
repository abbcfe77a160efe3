"""The agent's configuration: one JSON file, parsed once."""

from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from contracts import topics
from edge_agent.errors import ConfigError

FLUSH_INTERVAL_MS: Final = 200  # ms; leaves 1,300 ms of the 1,500 ms from publish to visible for the lake
PORT_MAX: Final = 65_535
QUOTA_BYTES: Final = 268_435_456  # bytes; a spool this full slows its sources down
QUOTA_BYTES_MIN: Final = 16_777_216  # bytes; four segments
RING_HOURS_MAX: Final = 24.0 * 365


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


class SpoolConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What the device keeps on disk. The spool's blocks are sealed with the key in `key_file`, made at the first start.

    `ring_hours` and `ring_bytes` bound the raw ring: events that the lake has no more need of, all of them, for those
    who ask later; 0 hours keep none. `quota_bytes` is for what the lake does not hold yet.
    """

    key_file: str | None = None  # in the spool's folder by default
    ring_hours: float = 72.0
    ring_bytes: int = 1_073_741_824  # 72 h at 1,000 telemetry events/s would be 3 GB: the age rules below some 350/s
    quota_bytes: int = QUOTA_BYTES


class AgentConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a device agent is told. With `until_drained` it ends once the lake has all of the source."""

    device: str
    shard: int
    mqtt: MqttConfig
    bundle_dir: str
    spool_dir: str
    status_file: str
    source: SourceConfig
    spool: SpoolConfig = SpoolConfig()
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
    spool = config.spool
    if not 0 <= spool.ring_hours <= RING_HOURS_MAX or spool.ring_bytes < 0 or spool.quota_bytes < QUOTA_BYTES_MIN:
        raise ConfigError(
            f"{label}: spool: expected ring_hours up to {RING_HOURS_MAX}, ring_bytes >= 0 and quota_bytes >= "
            f"{QUOTA_BYTES_MIN}, found {spool.ring_hours}, {spool.ring_bytes}, {spool.quota_bytes}"
        )

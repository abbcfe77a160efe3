"""The agent's configuration: one JSON file, parsed once."""

from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from contracts import releases, topics
from contracts.errors import ReleaseError
from edge_agent.core.metrics import METRICS_INTERVAL_S
from edge_agent.errors import ConfigError

FLUSH_INTERVAL_MS: Final = 200  # ms; leaves 1,300 ms of the 1,500 ms from publish to visible for the lake
METRICS_INTERVAL_S_MIN: Final = 10.0  # s; more often they would be a load of their own
PORT_MAX: Final = 65_535
QUOTA_BYTES: Final = 268_435_456  # bytes; a spool this full slows its sources down
QUOTA_BYTES_MIN: Final = 16_777_216  # bytes; four segments
RING_HOURS_MAX: Final = 24.0 * 365
SOURCES_MAX: Final = 16  # sources of one agent; each that is pushed to has a thread and up to 4 MiB of its own
SOCKET_PATH_BYTES_MAX: Final = 107  # bytes; sun_path of unix(7)
TOPIC_BYTES_MAX: Final = 1_024  # bytes; of MQTT's 65,535, what a person still reads

ProfileName: TypeAlias = Literal["full", "lite"]


class MqttConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The broker and the certificate by which it knows the device. Paths are files in PEM form.

    A device that looks after its certificate itself has `identity_dir`, the folder that it enrolled into, instead of
    two files.
    """

    host: str
    port: int
    ca_file: str
    cert_file: str | None = None
    key_file: str | None = None
    identity_dir: str | None = None


class SpoolConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What the device keeps on disk. The spool's blocks are sealed with the key in `key_file`, made at the first start.

    `ring_hours` and `ring_bytes` bound the raw ring: events that the lake has no more need of, all of them, for those
    who ask later; 0 hours keep none. `quota_bytes` is for what the lake does not hold yet.
    """

    key_file: str | None = None  # in the spool's folder by default
    ring_hours: float = 72.0
    ring_bytes: int = 1_073_741_824  # 72 h at 1,000 telemetry events/s would be 3 GB: the age rules below some 350/s
    quota_bytes: int = QUOTA_BYTES


class FileSource(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="file"):
    """A file: `.csv` with a header line, or JSON lines; `.gz` and `.zst` of both are replayed, never followed.

    A rate of 0 is as fast as it goes. With `follow`, lines appended later are events too, over rotations.
    """

    name: str
    file: str
    contract: str
    rate_events_per_s: float = 0.0
    follow: bool = False


class SocketSource(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="socket"):
    """A Unix socket for apps on the device. Without `uids` only processes of the agent's own user may speak."""

    name: str
    path: str
    contracts: tuple[str, ...]
    uids: tuple[int, ...] = ()


class HttpSource(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="http"):
    """HTTP on the loopback interface. The token file holds one line, readable for nobody else."""

    name: str
    port: int
    contracts: tuple[str, ...]
    token_file: str


class Subscription(Struct, frozen=True, forbid_unknown_fields=True):
    """A topic filter whose messages are events of one contract: one JSON object, or JSON lines.

    `number_field` names a field with a number that grows from event to event of one topic; then a message that the
    sensor or the broker sends again is recognised. Where the number begins anew with each start of the sensor,
    `producer_field` must name a field that tells one start, or one sensor, from another. Without a number an event
    whose acknowledgement was lost is there twice.
    """

    topic: str
    contract: str
    number_field: str | None = None
    producer_field: str | None = None


class MqttSource(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="mqtt"):
    """A broker on the device's own network, of which the agent is a client. Only loopback may go without TLS.

    Paths are files in PEM form; the password file holds one line. The broker knows the agent by `client_id` and keeps
    its session, so each agent needs one of its own.
    """

    name: str
    host: str
    client_id: str
    subscriptions: tuple[Subscription, ...]
    port: int = 8_883
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    username: str | None = None
    password_file: str | None = None


PushedSource: TypeAlias = SocketSource | HttpSource | MqttSource
AnySource: TypeAlias = FileSource | SocketSource | HttpSource | MqttSource


class RepositoryBundles(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="repository"):
    """Signed bundles of a group of devices, as they are published.

    `url` is the bundle server's address without a path, `root_file` the repository's root that the device was given
    when it was set up, `bundles_dir` the folder for all that is kept of bundles. The device shows its own certificate;
    `ca_file` is the broker's unless another is given.
    """

    url: str
    root_file: str
    bundles_dir: str
    group: str = releases.DEFAULT_GROUP
    ca_file: str | None = None


class AgentConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a device agent is told. With `until_drained` it ends once the lake has all of the source.

    The `lite` profile is for devices with little memory: it goes without numpy and ONNX Runtime, needs the lite form of
    the bundle's models, and has no sketches for large windows.

    What it runs is either the bundle in `bundle_dir`, for good, or what a repository has for it, by `bundles`.
    """

    device: str
    shard: int
    mqtt: MqttConfig
    spool_dir: str
    status_file: str
    sources: tuple[AnySource, ...]
    bundle_dir: str | None = None
    bundles: RepositoryBundles | None = None
    spool: SpoolConfig = SpoolConfig()
    flush_interval_ms: int = FLUSH_INTERVAL_MS
    until_drained: bool = False
    profile: ProfileName = "full"
    metrics_interval_s: float = METRICS_INTERVAL_S  # 0 writes none
    log_file: str | None = None  # standard error by default


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
    files = (config.mqtt.cert_file, config.mqtt.key_file)
    if (None in files) != (config.mqtt.identity_dir is not None) or len({name is None for name in files}) == 2:
        raise ConfigError(f"{label}: mqtt: expected either cert_file and key_file, or identity_dir")
    _check_bundles(config, label)
    if config.flush_interval_ms < 1:
        raise ConfigError(f"{label}: expected flush_interval_ms >= 1, found {config.flush_interval_ms}")
    if config.metrics_interval_s and not METRICS_INTERVAL_S_MIN <= config.metrics_interval_s < float("inf"):
        raise ConfigError(
            f"{label}: expected metrics_interval_s of 0 or from {METRICS_INTERVAL_S_MIN} on, "
            f"found {config.metrics_interval_s}"
        )
    spool = config.spool
    if not 0 <= spool.ring_hours <= RING_HOURS_MAX or spool.ring_bytes < 0 or spool.quota_bytes < QUOTA_BYTES_MIN:
        raise ConfigError(
            f"{label}: spool: expected ring_hours up to {RING_HOURS_MAX}, ring_bytes >= 0 and quota_bytes >= "
            f"{QUOTA_BYTES_MIN}, found {spool.ring_hours}, {spool.ring_bytes}, {spool.quota_bytes}"
        )
    check_sources(config.sources, label)
    if config.until_drained and not all(isinstance(one, FileSource) and not one.follow for one in config.sources):
        raise ConfigError(f"{label}: until_drained: expected files that are not followed: other sources never end")


def _check_bundles(config: AgentConfig, label: str) -> None:
    if (config.bundle_dir is None) == (config.bundles is None):
        raise ConfigError(
            f"{label}: expected either bundle_dir or bundles, found {'both' if config.bundles else 'none'}"
        )
    if config.bundles is not None:
        try:
            releases.check_group(config.bundles.group)
        except ReleaseError as error:
            raise ConfigError(f"{label}: bundles: {error}") from error
        if not config.bundles.url.startswith("https://"):
            raise ConfigError(f"{label}: bundles: expected an https:// url, found {config.bundles.url!r}")


def check_sources(sources: tuple[AnySource, ...], label: str) -> None:
    """Raise ConfigError when the sources cannot stand beside each other, or one of them not at all."""
    if not sources:
        raise ConfigError(f"{label}: sources: expected at least one")
    names = [source.name for source in sources]
    files = [source.contract for source in sources if isinstance(source, FileSource)]
    pushed = {contract for source in sources for contract in contracts_of(source) if not isinstance(source, FileSource)}
    if len(set(files)) != len(files) or pushed & set(files):
        raise ConfigError(
            f"{label}: sources: expected a file's contract to be of no other source, found {sorted(files)}"
        )
    if len(names) > SOURCES_MAX or len(set(names)) != len(names):
        raise ConfigError(f"{label}: sources: expected up to {SOURCES_MAX} of different names, found {names}")
    for source in sources:
        at = f"{label}: source {source.name!r}"
        if not topics.is_origin(source.name):
            raise ConfigError(f"{at}: name: expected 1 to {topics.ORIGIN_CHARS_MAX} letters, digits, -_.")
        match source:
            case FileSource():
                _check_file(source, at)
            case SocketSource():
                _check_socket(source, at)
            case HttpSource():
                _check_contracts(source.contracts, at)
                _check_port(source.port, at)
            case MqttSource():
                _check_mqtt(source, at)


def contracts_of(source: AnySource) -> tuple[str, ...]:
    """Return the contracts whose events a source brings."""
    match source:
        case FileSource():
            return (source.contract,)
        case MqttSource():
            return tuple(dict.fromkeys(subscription.contract for subscription in source.subscriptions))
        case _:
            return source.contracts


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine, by its name or number alone."""
    from ipaddress import ip_address  # only for sources that listen: 0.3 MB

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_file(source: FileSource, at: str) -> None:
    if not 0 <= source.rate_events_per_s < float("inf"):
        raise ConfigError(f"{at}: expected rate_events_per_s >= 0, found {source.rate_events_per_s}")
    if source.follow and source.file.endswith((".gz", ".zst")):
        raise ConfigError(f"{at}: {source.file}: a packed file cannot be followed: set follow to false")


def _check_socket(source: SocketSource, at: str) -> None:
    _check_contracts(source.contracts, at)
    if not source.path.startswith("/") or len(source.path.encode()) > SOCKET_PATH_BYTES_MAX:
        raise ConfigError(
            f"{at}: path: expected an absolute path of up to {SOCKET_PATH_BYTES_MAX} bytes, found {source.path!r}"
        )
    if any(uid < 0 for uid in source.uids):
        raise ConfigError(f"{at}: uids: expected numbers of users, found {source.uids}")


def _check_mqtt(source: MqttSource, at: str) -> None:
    _check_port(source.port, at)
    if not source.subscriptions or not topics.is_origin(source.client_id):
        raise ConfigError(
            f"{at}: expected a subscription, and a client_id of up to {topics.ORIGIN_CHARS_MAX} letters, digits, -_."
        )
    if source.ca_file is None and not is_loopback(source.host):
        raise ConfigError(f"{at}: {source.host} is not this machine: expected a ca_file, TLS is required there")
    if (source.cert_file is None) != (source.key_file is None) or (source.cert_file and source.ca_file is None):
        raise ConfigError(f"{at}: expected cert_file and key_file together, beside a ca_file")
    if source.password_file is not None and source.username is None:
        raise ConfigError(f"{at}: password_file: expected together with a username")
    for subscription in source.subscriptions:
        if not is_topic_filter(subscription.topic):
            raise ConfigError(f"{at}: topic {subscription.topic!r}: expected an MQTT topic filter, not a shared one")
        if any(
            _overlap(subscription.topic, other.topic) for other in source.subscriptions if other is not subscription
        ):
            raise ConfigError(f"{at}: topic {subscription.topic!r}: expected filters of which no topic matches two")
        if subscription.producer_field is not None and subscription.number_field is None:
            raise ConfigError(f"{at}: producer_field: expected together with a number_field")


def is_topic_filter(topic: str) -> bool:
    """Say whether a text is a topic filter of MQTT 5, section 4.7, that is not shared and not of the broker itself."""
    levels = topic.split("/")
    return (
        0 < len(topic.encode()) <= TOPIC_BYTES_MAX
        and "\0" not in topic
        and not topic.startswith("$")
        and "#" not in "".join(levels[:-1])
        and all(level in ("+", "#") or not set(level) & {"+", "#"} for level in levels)
    )


def _overlap(one: str, other: str) -> bool:
    """Say whether some topic matches both filters: the broker would send its messages twice."""
    first, second = one.split("/"), other.split("/")
    for mine, its in zip(first, second, strict=False):
        if "#" in (mine, its):
            return True
        if mine != its and "+" not in (mine, its):
            return False
    longer, size = max(first, second, key=len), min(len(first), len(second))
    return len(first) == len(second) or longer[size:] == ["#"]


def _check_contracts(contracts: tuple[str, ...], at: str) -> None:
    if not contracts or not all(contracts):
        raise ConfigError(f"{at}: contracts: expected the ids of those that may be sent here, found {contracts}")


def _check_port(port: int, at: str) -> None:
    if not 0 < port <= PORT_MAX:
        raise ConfigError(f"{at}: expected a port up to {PORT_MAX}, found {port}")

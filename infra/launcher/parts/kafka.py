"""Kafka: the log. One KRaft node; a plain listener on loopback, and the production one: TLS, client certificates."""

from collections.abc import Mapping
from typing import Final

from contracts.topics import KAFKA_TOPICS, LogTopic
from infra.launcher.certificates import SERVER_NAME
from infra.launcher.errors import NotReadyError, PartFailedError
from infra.launcher.model import ConfigFile, Context, Part
from infra.launcher.parts.commands import run_tool
from infra.launcher.settings import HOST
from infra.setup.paths import java_25_home, kafka_libs_dir

NAME: Final = "kafka"
# A process of some seconds ends before the second compiler has paid for itself.
SHORT_LIVED: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
PROBE_TOPIC: Final = "fieldlake.launcher.probe"
# A produce that works takes 0.5 s the first time; the rest is room for a busy machine.
PROBE_TIMEOUT_S: Final = 5.0
ADMIN_TIMEOUT_S: Final = 20.0
RETENTION_MS: Final = 7 * 24 * 3_600_000  # as long as a broker session of an absent gateway lives
PROBE_RETENTION_MS: Final = 60_000
# ms until a group's first member has a share; workers that start together are dealt theirs once, not one by one.
FIRST_SHARES_AFTER_MS: Final = 1_000
# Deletion works by whole segments, so without a bound a quiet local log would never shrink.
SEGMENT_BYTES: Final = 128 * 1_048_576


def part(context: Context) -> Part:
    """Return the part."""
    conf = context.conf(NAME)
    memory = context.settings.memory.kafka_heap_mib
    return Part(
        name=NAME,
        title="Kafka",
        command=(
            *_java(f"-Xms{memory}m", f"-Xmx{memory}m"),
            "-XX:+UseG1GC",
            "-XX:+ExitOnOutOfMemoryError",
            f"-Dlog4j2.configurationFile={conf}/log4j2.yaml",
            "-cp",
            _class_path(),
            "kafka.Kafka",
            str(conf / "server.properties"),
        ),
        address=bootstrap(context),
        probe=probe,
        files=(
            ConfigFile(conf / "server.properties", server_settings(context)),
            ConfigFile(conf / "log4j2.yaml", logging_settings()),
        ),
        ports=("kafka", "kafka_controller", "kafka_tls"),
        owned=(context.data(NAME),),
        prepare=prepare,
        provision=provision,
        stop_wait_s=20,
    )


def bootstrap(context: Context) -> str:
    """Return the plain listener's address, for our own processes on this machine."""
    return f"{HOST}:{context.settings.port('kafka')}"


def bootstrap_tls(context: Context) -> str:
    """Return the production listener's address."""
    return f"{HOST}:{context.settings.port('kafka_tls')}"


def server_settings(context: Context) -> str:
    """Render `server.properties`."""
    plain, tls = bootstrap(context), bootstrap_tls(context)
    controller = f"{HOST}:{context.settings.port('kafka_controller')}"
    addresses = f"PLAINTEXT://{plain},TLS://{tls},CONTROLLER://{controller}"
    lines: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.bootstrap.servers": controller,
        "listeners": addresses,
        "advertised.listeners": addresses,
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,TLS:SSL,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": context.data(NAME) / "log",
        **_single_node(),
        **_tls_listener(context),
        "group.initial.rebalance.delay.ms": FIRST_SHARES_AFTER_MS,
        "auto.create.topics.enable": "false",
        "message.max.bytes": 4_194_304,
        "log.cleaner.dedupe.buffer.size": 8_388_608,
        "log.segment.bytes": SEGMENT_BYTES,
        "log.retention.ms": RETENTION_MS,
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def logging_settings() -> str:
    """Render `log4j2.yaml`: warnings and the start's own lines, to standard output."""
    return """\
Configuration:
  Appenders:
    Console:
      name: STDOUT
      PatternLayout:
        pattern: "%d{ISO8601} %p %m (%c)%n"
  Loggers:
    Root:
      level: WARN
      AppenderRef:
        - ref: STDOUT
    Logger:
      - name: kafka.server
        level: INFO
"""


def prepare(context: Context) -> None:
    """Format the storage at the first start."""
    if not any(kafka_libs_dir().glob("kafka_2.13-*.jar")):
        raise PartFailedError(f"kafka: no jars in {kafka_libs_dir()}; run `make setup`")
    if (context.data(NAME) / "log" / "meta.properties").exists():
        return
    properties = context.conf(NAME) / "server.properties"
    # In one word: one id in 64 begins with a dash, and would be taken for an option.
    arguments = ["format", "--standalone", f"--cluster-id={context.secrets.kafka_cluster_id}", "-c", str(properties)]
    run_tool(NAME, [*_java("-Xmx128m", *SHORT_LIVED), "-cp", _class_path(), "kafka.tools.StorageTool", *arguments])


def probe(context: Context) -> None:
    """Produce one message and wait for its acknowledgement."""
    from confluent_kafka import KafkaError, KafkaException, Message, Producer

    _create_missing(context, {PROBE_TOPIC: _probe_topic_settings()}, {PROBE_TOPIC: 1})
    failures: list[KafkaError | None] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        failures.append(error)

    producer = Producer({"bootstrap.servers": bootstrap(context), "acks": "all", "log_level": 0})
    try:
        producer.produce(PROBE_TOPIC, b"ready", on_delivery=delivered)
        producer.flush(PROBE_TIMEOUT_S)
    except KafkaException as error:
        raise NotReadyError(f"kafka: {error}") from None
    if failures != [None]:
        raise NotReadyError(f"kafka: message not acknowledged within {PROBE_TIMEOUT_S} s: {failures}")


def provision(context: Context) -> None:
    """Make the topics that are missing."""
    _create_missing(
        context,
        {topic.name: topic_settings(topic) for topic in KAFKA_TOPICS},
        {topic.name: topic.partitions for topic in KAFKA_TOPICS},
    )


def topic_settings(topic: LogTopic) -> dict[str, str]:
    """Return the settings of a topic; a compacted one is cleaned soon, so that readers start fast."""
    if topic.compacted:
        return {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1", "segment.ms": "600000"}
    return {"cleanup.policy": "delete", "retention.ms": str(RETENTION_MS)}


def _create_missing(context: Context, settings: Mapping[str, dict[str, str]], partitions: Mapping[str, int]) -> None:
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    admin = AdminClient({"bootstrap.servers": bootstrap(context), "log_level": 0})
    topics = [
        NewTopic(name, num_partitions=partitions[name], replication_factor=1, config=config)
        for name, config in settings.items()
    ]
    for name, future in admin.create_topics(topics, request_timeout=ADMIN_TIMEOUT_S).items():
        try:
            future.result(ADMIN_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise NotReadyError(f"kafka: topic {name} not created: {error}") from None
        except TimeoutError:
            raise NotReadyError(f"kafka: topic {name} not created within {ADMIN_TIMEOUT_S} s") from None


def _probe_topic_settings() -> dict[str, str]:
    return {"retention.ms": str(PROBE_RETENTION_MS), "segment.ms": str(PROBE_RETENTION_MS)}


def _single_node() -> dict[str, object]:
    return {
        "default.replication.factor": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
    }


def _tls_listener(context: Context) -> dict[str, object]:
    paths = context.certificate(SERVER_NAME)
    return {
        "listener.name.tls.ssl.client.auth": "required",
        "listener.name.tls.ssl.keystore.type": "PEM",
        "listener.name.tls.ssl.keystore.location": paths.chain_file,
        "listener.name.tls.ssl.truststore.type": "PEM",
        "listener.name.tls.ssl.truststore.location": paths.ca_file,
        "listener.name.tls.ssl.enabled.protocols": "TLSv1.3",
    }


def _java(*options: str) -> tuple[str, ...]:
    return (str(java_25_home() / "bin" / "java"), *options)


def _class_path() -> str:
    return str(kafka_libs_dir() / "*")

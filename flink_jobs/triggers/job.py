"""The trigger job: candidates and rules in, decisions out. `flink run -d -py job.py --config FILE` submits it.

`FILE` holds a TriggersConfig as JSON. The candidates' value is taken as bytes; the rules come through a table, because
that alone brings keys, deletions (an empty value) and offsets into Python. Decisions are sent at least once and keyed
by subject; a repeat has the same id.
"""

import argparse
import sys
from pathlib import Path

from pyflink.common import Configuration, Types, WatermarkStrategy
from pyflink.common.serialization import ByteArraySchema, RowFieldExtractorSchema
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.datastream.connectors.base import DeliveryGuarantee
from pyflink.datastream.connectors.kafka import (
    KafkaOffsetResetStrategy,
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)
from pyflink.table import StreamTableEnvironment

from contracts import topics
from flink_jobs.triggers.config import TriggersConfig, read
from flink_jobs.triggers.recovery import newest_checkpoint
from flink_jobs.triggers.trigger_operator import DECISION_TYPE, RULES_STATE, TriggerOperator, shard_key

JOB_NAME = "fieldlake-triggers"
GROUP = "fieldlake-triggers"
BUFFER_TIMEOUT_MS = 10  # a candidate waits at most this long for company on its way between operators
RESTART_DELAY_MS = 100
# Without a task manager a restart fails at once; trying more often only takes the processor from the one that starts.
RESTART_DELAY_MS_MAX = 1_000


def main(arguments: list[str]) -> None:
    """Build the job and submit it."""
    parser = argparse.ArgumentParser(prog="job.py", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="JSON file, for example run/triggers.json")
    config = read(parser.parse_args(arguments).config, TriggersConfig)
    environment = StreamExecutionEnvironment.get_execution_environment(settings(config))
    build(environment, config)
    environment.execute(JOB_NAME)


def settings(config: TriggersConfig) -> Configuration:
    """Return what this job needs, whatever the cluster's defaults are."""
    values = {
        "python.execution-mode": "thread",
        "parallelism.default": str(config.parallelism),
        "pipeline.object-reuse": "true",
        "state.backend.type": "hashmap",
        "execution.buffer-timeout.interval": f"{BUFFER_TIMEOUT_MS} ms",
        "execution.checkpointing.interval": f"{config.checkpoint_interval_ms} ms",
        "execution.checkpointing.mode": "AT_LEAST_ONCE",
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": f"{RESTART_DELAY_MS} ms",
        "restart-strategy.exponential-delay.max-backoff": f"{RESTART_DELAY_MS_MAX} ms",
        "restart-strategy.exponential-delay.backoff-multiplier": "2.0",
        "restart-strategy.exponential-delay.reset-backoff-threshold": "10 s",
        "table.exec.uid.generation": "ALWAYS",
    }
    if config.checkpoint_dir:
        folder = config.checkpoint_dir
        values |= {
            "execution.checkpointing.storage": "filesystem",
            "execution.checkpointing.dir": folder if "://" in folder else Path(folder).resolve().as_uri(),
            "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        }
    if (checkpoint := newest_checkpoint(config.checkpoint_dir)) is not None:
        values["execution.state-recovery.path"] = checkpoint.resolve().as_uri()
        values["execution.state-recovery.claim-mode"] = "CLAIM"  # the new job removes it once it has its own
    configuration = Configuration()
    for name, value in values.items():
        configuration.set_string(name, value)
    return configuration


def build(environment: StreamExecutionEnvironment, config: TriggersConfig) -> None:
    """Connect sources, operator and sink."""
    rules = _rules(environment, config).broadcast(RULES_STATE)
    decided = (
        _candidates(environment, config)
        .key_by(shard_key, Types.INT())
        .connect(rules)
        .process(TriggerOperator(), DECISION_TYPE)
        .name("evaluate")
        .uid("evaluate")
    )
    decided.sink_to(_decisions(config)).name("decisions").uid("decisions")


def _candidates(environment: StreamExecutionEnvironment, config: TriggersConfig) -> DataStream:
    source = (
        KafkaSource.builder()
        .set_bootstrap_servers(config.kafka_bootstrap)
        .set_topics(topics.CANDIDATES)
        .set_group_id(GROUP)
        .set_starting_offsets(KafkaOffsetsInitializer.committed_offsets(KafkaOffsetResetStrategy.EARLIEST))
        .set_value_only_deserializer(ByteArraySchema())
        .build()
    )
    return environment.from_source(source, WatermarkStrategy.no_watermarks(), "candidates").uid("candidates")


def _rules(environment: StreamExecutionEnvironment, config: TriggersConfig) -> DataStream:
    tables = StreamTableEnvironment.create(environment)
    tables.execute_sql(f"""
        CREATE TEMPORARY TABLE rules (
            id BYTES,
            document BYTES,
            record_offset BIGINT METADATA FROM 'offset' VIRTUAL
        ) WITH (
            'connector' = 'kafka',
            'topic' = '{topics.RULES}',
            'properties.bootstrap.servers' = '{config.kafka_bootstrap}',
            'scan.startup.mode' = 'earliest-offset',
            'key.format' = 'raw',
            'key.fields' = 'id',
            'value.format' = 'raw',
            'value.fields-include' = 'EXCEPT_KEY'
        )""")
    return tables.to_data_stream(tables.from_path("rules"))


def _decisions(config: TriggersConfig) -> KafkaSink:
    serializer = (
        KafkaRecordSerializationSchema.builder()
        .set_topic(topics.DECISIONS)
        .set_key_serialization_schema(RowFieldExtractorSchema(0))
        .set_value_serialization_schema(RowFieldExtractorSchema(1))
        .build()
    )
    return (
        KafkaSink.builder()
        .set_bootstrap_servers(config.kafka_bootstrap)
        .set_delivery_guarantee(DeliveryGuarantee.AT_LEAST_ONCE)
        .set_record_serializer(serializer)
        .build()
    )


if __name__ == "__main__":
    main(sys.argv[1:])

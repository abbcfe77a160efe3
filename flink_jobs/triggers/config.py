"""Configuration of the preselector and the trigger job, parsed once from the file named on the command line."""

from msgspec import Struct


class PreselectConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the preselector process."""

    kafka_bootstrap: str


class TriggersConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the Flink job."""

    kafka_bootstrap: str
    parallelism: int = 1
    checkpoint_interval_ms: int = 1_000

"""Configuration of the preselector and the trigger job, parsed once from the file named on the command line."""

from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from flink_jobs.triggers.errors import TriggersConfigError


class PreselectConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the preselector process; several that share the load need a different `instance` each."""

    kafka_bootstrap: str
    instance: str = "1"


class TriggersConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the Flink job.

    `checkpoint_dir` is a folder or URI that every part of the cluster reaches; checkpoints in it outlive the job, and a
    job submitted anew goes on from the newest of them. Empty: the cluster's own setting, and a new job starts afresh.
    """

    kafka_bootstrap: str
    parallelism: int = 1
    checkpoint_interval_ms: int = 1_000
    checkpoint_dir: str = ""


_Config = TypeVar("_Config", PreselectConfig, TriggersConfig)


def read(file: Path, kind: type[_Config]) -> _Config:
    """Return the configuration in a JSON file. Raises TriggersConfigError."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise TriggersConfigError(f"{file}: expected a {kind.__name__} as JSON: {error}") from error

"""Configuration of the quality process, parsed once from the file named on the command line."""

from msgspec import Struct

from lakehouse.config import LakeConfig


class EngineConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach Trino over TLS."""

    host: str
    port: int
    ca_file: str
    user: str
    password: str


class QualityConfig(LakeConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of the quality process. `expectations_dir` holds analysts' files, `report_dir` gets the pages.

    Without an `engine` only what was committed is looked at.
    """

    expectations_dir: str
    report_dir: str
    engine: EngineConfig | None = None
    look_interval_ms: int = 10_000
    whole_interval_s: int = 3_600
    sample_rows_max: int = 20_000

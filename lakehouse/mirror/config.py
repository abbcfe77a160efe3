"""Configuration of the mirror, parsed once from the file named on the command line."""

from msgspec import Struct


class DatabaseConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The database that holds the mirror, and the role that may write there."""

    host: str
    port: int
    database: str
    user: str
    password: str


class MirrorConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the mirror process. A batch of `batch_changes_max` changes is one transaction."""

    kafka_bootstrap: str
    database: DatabaseConfig
    batch_changes_max: int = 5_000

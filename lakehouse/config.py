"""Configuration of ingest and maintenance, parsed once from the file named on the command line."""

from msgspec import Struct


class CatalogConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One Iceberg catalog: its rows in PostgreSQL and its files in an object store."""

    name: str
    uri: str
    warehouse: str
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: str
    s3_region: str = "us-east-1"


class LakeConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of an ingest worker and of the maintenance process.

    `worker` names a worker among those that share the work. One that is restarted has its share back at once.
    """

    kafka_bootstrap: str
    catalogs: tuple[CatalogConfig, ...]
    worker: str = "ingest-1"
    commit_interval_ms: int = 250
    maintenance_interval_ms: int = 6_000  # about 25 commits of a busy table

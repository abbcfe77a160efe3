"""Configuration of the history endpoint and the Trino warmer, parsed once from the file named on the command line."""

from msgspec import Struct


class CatalogConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One Iceberg catalog, read only: its rows in PostgreSQL and its files in an object store."""

    name: str
    uri: str
    warehouse: str
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: str
    s3_region: str = "us-east-1"


class TrinoConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach Trino over TLS."""

    host: str
    port: int
    ca_file: str
    user: str
    password: str


class FederationConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the query API: the history store, its listener, and the engine that it keeps warm."""

    catalog: CatalogConfig
    trino: TrinoConfig
    host: str
    port: int
    tls_cert_file: str
    tls_key_file: str
    token_file: str
    warm_queries_max: int = 20_000

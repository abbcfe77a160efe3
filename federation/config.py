"""Configuration of the history endpoint and the Trino warmer, parsed once from the file named on the command line."""

from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from federation.errors import ServiceConfigError

TOKEN_CHARS_MIN: Final = 16  # characters; shorter ones can be guessed


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


def read_config(path: Path) -> FederationConfig:
    """Read the configuration file, JSON. Raises ServiceConfigError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=FederationConfig)
    except OSError as error:
        raise ServiceConfigError(f"configuration {path}: {error.strerror}: name an existing file") from None
    except msgspec.MsgspecError as error:
        raise ServiceConfigError(
            f"configuration {path}: expected a federation configuration in JSON: {error}"
        ) from None


def read_token(config: FederationConfig) -> str:
    """Read the bearer token. Raises ServiceConfigError when there is none, since then anybody could ask."""
    try:
        token = Path(config.token_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceConfigError(f"token file {config.token_file}: cannot be read: {error}") from None
    if len(token) < TOKEN_CHARS_MIN:
        raise ServiceConfigError(
            f"token file {config.token_file}: expected at least {TOKEN_CHARS_MIN} characters, found {len(token)}"
        )
    return token

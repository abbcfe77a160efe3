"""An outside reader of the tables: DuckDB with its own Iceberg implementation."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import duckdb
import psycopg

from contracts.contract import Contract
from lakehouse.config import LakeConfig

EXTENSIONS = ("avro", "httpfs", "iceberg")
_PACKAGE = find_spec("duckdb_ext")
assert _PACKAGE is not None
assert _PACKAGE.submodule_search_locations is not None
EXTENSIONS_DIR = Path(_PACKAGE.submodule_search_locations[0]) / "extensions"


def read(config: LakeConfig, contract: Contract, query: str) -> list[tuple[Any, ...]]:
    """Run a query over a contract's table, which it calls `rows`; the pointer comes from the catalog's own table."""
    catalog = next(c for c in config.catalogs if c.name == contract.catalog)
    with psycopg.connect(catalog.uri.replace("postgresql+psycopg2", "postgresql")) as database:
        found = database.execute(
            "SELECT metadata_location FROM iceberg_tables "
            "WHERE catalog_name = %s AND table_namespace = %s AND table_name = %s",
            (catalog.name, contract.namespace, contract.id),
        ).fetchone()
    assert found is not None
    with duckdb.connect(config={"extension_directory": str(EXTENSIONS_DIR)}) as engine:
        for name in EXTENSIONS:
            engine.execute(f"LOAD {name}")
        endpoint = urlparse(catalog.s3_endpoint)
        engine.execute(
            f"CREATE SECRET (TYPE s3, KEY_ID '{catalog.s3_access_key}', SECRET '{catalog.s3_secret_key}', "
            f"ENDPOINT '{endpoint.netloc}', URL_STYLE 'path', USE_SSL false, REGION '{catalog.s3_region}')"
        )
        engine.execute(f"CREATE VIEW rows AS SELECT * FROM iceberg_scan('{found[0]}')")
        rows: list[tuple[Any, ...]] = engine.execute(query).fetchall()
        return rows

"""Three engines behind one seam: PyIceberg, DuckDB and Trino read the same tables, each with its own implementation."""

import datetime as dt
from typing import Any, Final, Protocol
from urllib.parse import urlparse

import duckdb
import numpy as np
from pyiceberg.expressions import BooleanExpression, EqualTo

from contracts.contract import Contract, FieldType
from federation.trino import TrinoClient
from lakehouse.catalog import open_catalog
from lakehouse.config import CatalogConfig
from tests.lakehouse.judge import EXTENSIONS, EXTENSIONS_DIR

EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
Rows = list[tuple[Any, ...]]


class Reader(Protocol):
    """One engine. Values come as Python's own; a time as microseconds since 1970 UTC."""

    def rows(
        self,
        contract: Contract,
        columns: tuple[str, ...],
        snapshot_id: int | None = None,
        where: tuple[str, str | float] | None = None,
    ) -> Rows:
        """Return columns of all rows ordered by seq, of the newest or one older snapshot; `where`: column = value."""
        ...


class PyIcebergReader:
    """The library that writes, reading."""

    def __init__(self, config: CatalogConfig) -> None:
        self._config = config

    def rows(
        self,
        contract: Contract,
        columns: tuple[str, ...],
        snapshot_id: int | None = None,
        where: tuple[str, str | float] | None = None,
    ) -> Rows:
        catalog = open_catalog(self._config)
        try:
            scan = catalog.load_table(contract.table).scan(snapshot_id=snapshot_id)
            found = (scan if where is None else scan.filter(_equal(*where))).to_arrow().sort_by("seq")
        finally:
            catalog.engine.dispose()
        return [tuple(_plain(row[name]) for name in columns) for row in found.to_pylist()]


class DuckReader:
    """An outside implementation, given nothing but the metadata file's location."""

    def __init__(self, config: CatalogConfig) -> None:
        self._config = config

    def rows(
        self,
        contract: Contract,
        columns: tuple[str, ...],
        snapshot_id: int | None = None,
        where: tuple[str, str | float] | None = None,
    ) -> Rows:
        catalog = open_catalog(self._config)
        location = catalog.load_table(contract.table).metadata_location
        catalog.engine.dispose()
        at = "" if snapshot_id is None else f", snapshot_from_id = {snapshot_id}"
        query = f"SELECT {', '.join(columns)} FROM iceberg_scan('{location}'{at}){_condition(where)} ORDER BY seq"
        with duckdb.connect(config={"extension_directory": str(EXTENSIONS_DIR)}) as engine:
            for name in EXTENSIONS:
                engine.execute(f"LOAD {name}")
            engine.execute("SET TimeZone = 'UTC'")
            if self._config.s3_endpoint:
                engine.execute(
                    f"CREATE SECRET (TYPE s3, KEY_ID '{self._config.s3_access_key}', "
                    f"SECRET '{self._config.s3_secret_key}', ENDPOINT '{urlparse(self._config.s3_endpoint).netloc}', "
                    f"URL_STYLE 'path', USE_SSL false, REGION '{self._config.s3_region}')"
                )
            return [tuple(map(_plain, row)) for row in engine.execute(query).fetchall()]


class TrinoReader:
    """The engine of analysts, through its own catalog of the same tables."""

    def __init__(self, client: TrinoClient) -> None:
        self._client = client

    def rows(
        self,
        contract: Contract,
        columns: tuple[str, ...],
        snapshot_id: int | None = None,
        where: tuple[str, str | float] | None = None,
    ) -> Rows:
        at = "" if snapshot_id is None else f" FOR VERSION AS OF {snapshot_id}"
        table = f"{contract.catalog}.{contract.table}{at}{_condition(where)}"
        found = self._client.query(f"SELECT {', '.join(columns)} FROM {table} ORDER BY seq")
        # Its 32-bit numbers arrive as the shortest decimal that names them.
        short = {field.name for field in contract.fields if field.type is FieldType.FLOAT}
        return [
            tuple(
                float(np.float32(value)) if name in short and value is not None else _plain(value)
                for name, value in zip(columns, row, strict=True)
            )
            for row in found.rows
        ]


def _equal(column: str, value: str | float) -> BooleanExpression:
    return EqualTo(column, value)  # type: ignore[call-arg,arg-type]


def _condition(where: tuple[str, str | float] | None) -> str:
    if where is None:
        return ""
    column, value = where
    literal = f"'{value}'" if isinstance(value, str) else f"CAST('{value!r}' AS double)"
    return f" WHERE {column} = {literal}"


def _plain(value: Any) -> Any:
    return (value - EPOCH) // dt.timedelta(microseconds=1) if isinstance(value, dt.datetime) else value

"""Read the lake's tables as Arrow with DuckDB: an outside reader, so that our own cannot hide its own mistakes."""

from pathlib import Path
from types import TracebackType
from typing import Self

import duckdb
import duckdb_ext  # type: ignore[import-untyped]  # a folder of extensions, no code
import psycopg
import pyarrow as pa

from infra.launcher.endpoints import Endpoints, StoreEndpoint


class LakeReader:
    """DuckDB over both stores; the catalog's pointer is read from PostgreSQL at every call."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        # Extensions come from an installed package: nothing is downloaded at run time.
        folder = Path(duckdb_ext.__path__[0]) / "extensions"
        self._duck = duckdb.connect(config={"extension_directory": str(folder)})
        for name in ("avro", "httpfs", "iceberg"):
            self._duck.execute(f"LOAD {name}")
        for store in (endpoints.store_a, endpoints.store_b):
            self._add_secret(store)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._duck.close()

    def read(self, catalog: str, table: str, columns: str = "*") -> pa.Table:
        """Return a table's rows in its current snapshot; `table` is `namespace.name`."""
        location = self.metadata_location(catalog, table)
        return self._duck.execute(f"SELECT {columns} FROM iceberg_scan('{location}')").fetch_arrow_table()

    @property
    def duck(self) -> duckdb.DuckDBPyConnection:
        """The connection, for a question that `read` cannot ask; `metadata_location` says what to scan."""
        return self._duck

    def metadata_location(self, catalog: str, table: str) -> str:
        """Return where the current metadata of a table lies."""
        namespace, name = table.rsplit(".", 1)
        with psycopg.connect(self._endpoints.postgres.uri("lake")) as connection:
            row = connection.execute(
                "SELECT metadata_location FROM iceberg_tables "
                "WHERE catalog_name = %s AND table_namespace = %s AND table_name = %s",
                (catalog, namespace, name),
            ).fetchone()
        if row is None:
            raise LookupError(f"table {catalog}.{table}: the catalog has none of that name")
        return str(row[0])

    def _add_secret(self, store: StoreEndpoint) -> None:
        scheme, _, address = store.endpoint_url.partition("://")
        self._duck.execute(
            f"CREATE SECRET {store.catalog} (TYPE s3, KEY_ID '{store.key_id}', SECRET '{store.secret}', "
            f"REGION '{store.region}', ENDPOINT '{address}', URL_STYLE 'path', USE_SSL {scheme == 'https'}, "
            f"SCOPE 's3://{store.bucket}')"
        )

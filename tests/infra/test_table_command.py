"""`fieldlake table`: rows or one line that says what is wrong."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyiceberg.catalog.sql import SqlCatalog

from infra.cli.main import EXIT_FAILED, run
from tests.lakehouse.foreign_tables import catalog_in, document, made_table, metadata_file


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[SqlCatalog]:
    made = catalog_in(tmp_path / "warehouse")
    yield made
    made.engine.dispose()


def test_a_table_is_read_by_its_folder(catalog: SqlCatalog, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made_table(catalog).location().removeprefix("file://")
    assert run(["table", "read", folder, "--limit", "2", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"id": 1, "name": "a"}, {"id": 2, "name": "名字"}]


def test_a_table_that_is_not_read_gives_no_row(catalog: SqlCatalog, capsys: pytest.CaptureFixture[str]) -> None:
    table = made_table(catalog)
    location = metadata_file(table, document(table) | {"format-version": 4})
    assert run(["table", "read", location]) == EXIT_FAILED
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "expected format version 1, 2, 3, found 4" in shown.err


@pytest.mark.parametrize("name", ["telemetry", "lake_a.telemetry", "lake_a..telemetry", "a.b.c.d"])
def test_a_name_has_three_parts(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["table", "history", name]) == EXIT_FAILED
    assert "expected catalog.namespace.table" in capsys.readouterr().err

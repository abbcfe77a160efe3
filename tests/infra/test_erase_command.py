"""`fieldlake erase`: whom it means, what it does in every table, and what it says."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from contracts.errors import OperatorMustActError
from infra.cli.erase import erase_all, lines, parse_subject
from infra.cli.main import run
from lakehouse.maintenance.erasure import Erased
from lakehouse.maintenance.subjects import Subject
from tests.lakehouse.frames import CONTRACTS, clicks
from tests.lakehouse.shelf import Shelf

WHOM = Subject("customer", "customer-1")


@pytest.fixture
def shelves(tmp_path: Path) -> Iterator[tuple[Shelf, Shelf]]:
    """Clicks in one store, refused clicks in the other."""
    made = Shelf(tmp_path), Shelf(tmp_path, CONTRACTS["quarantine"])
    made[0].fill(2)
    fixed = {"contract": "clicks", "refused_version": "1.0.0", "refused_epoch": 1, "refused_by": "lake", "rule": "r"}
    rows = [{key: row[key] for key in ("user_id", "event")} for row in clicks(range(6))]
    made[1].commit([fixed | {"seq": n, "refused_seq": n, "original": json.dumps(row)} for n, row in enumerate(rows)])
    yield made
    for shelf in made:
        shelf.close()


def test_every_table_of_every_store_is_searched(shelves: tuple[Shelf, Shelf]) -> None:
    catalogs = [shelf.catalog for shelf in shelves]
    found = list(erase_all(catalogs, WHOM, None, True, "me"))
    assert {(f.table, f.rows) for f in found} == {("lake_b.behaviour.clicks", 8), ("lake_a.ops.quarantine", 2)}
    done = list(erase_all(catalogs, WHOM, None, False, "me"))
    assert {(f.table, f.rows) for f in done} == {("lake_b.behaviour.clicks", 8), ("lake_a.ops.quarantine", 2)}
    assert all(f.remaining == () for f in done)
    assert [len(shelf.seqs()) for shelf in shelves] == [16, 4]


def test_one_table_may_be_named(shelves: tuple[Shelf, Shelf]) -> None:
    catalogs = [shelf.catalog for shelf in shelves]
    (done,) = erase_all(catalogs, WHOM, "lake_a.ops.quarantine", False, "me")
    assert done.rows == 2
    assert len(shelves[0].seqs()) == 24
    with pytest.raises(OperatorMustActError, match=r"CATALOG\.NAMESPACE\.TABLE"):
        list(erase_all(catalogs, WHOM, "lake_a.ops.nothing", False, "me"))


@pytest.mark.parametrize("text", ["customer", "=x", "customer=", ""])
def test_a_subject_needs_kind_and_id(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="KIND=ID"):
        parse_subject(text)


def test_an_id_may_hold_anything() -> None:
    assert parse_subject("customer=客户=1") == Subject("customer", "客户=1")


def test_a_wrong_subject_is_a_wrong_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["erase", "--subject", "nobody"]) == 2
    assert "customer=C-17" in capsys.readouterr().err


def test_what_is_left_is_said_and_never_called_verified() -> None:
    done = Erased("lake_a.x.y", 3, 2, remaining=("row in a",), pending=("b, 4 s old",), kept=("state c",))
    text = "\n".join(lines(done, dry_run=False))
    assert "NOT finished" in text
    assert "verified" not in text
    assert all(place in text for place in ("row in a", "b, 4 s old", "state c", "repeat in ten minutes"))
    assert "verified: nothing is left" in "\n".join(lines(Erased("lake_a.x.y", 3, 2), dry_run=False))

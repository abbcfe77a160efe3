"""Dictionaries: they prove themselves on unseen rows, follow what columns have in common, and keep no personal text."""

from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
import zstandard
from msgspec.structs import replace

from contracts import packing, wire
from contracts.contract import Contract, Field, FieldType
from infra.cli.main import run
from infra.datasets.replay import iso_times
from infra.dictionaries import DictionaryError, Rows, read_dictionary, train
from infra.dictionaries.masking import masked
from infra.dictionaries.planning import learn
from infra.dictionaries.training import ID_MIN

PRESS = Contract(
    id="press",
    version="1.0.0",
    title="",
    purpose="",
    owner="",
    catalog="c",
    namespace="n",
    retention_days=1,
    fields=(
        Field(1, "operator", FieldType.STRING, True, classification="personal"),
        Field(2, "occurred_at", FieldType.TIMESTAMPTZ, True, True),
        Field(3, "inlet", FieldType.INT, True),
        Field(4, "loss", FieldType.INT, True),
        Field(5, "outlet", FieldType.INT, True),
        Field(6, "state", FieldType.STRING, False),
    ),
)
OPERATORS = ("user-王伟", "user-李芳", "user-Anna")


def rows(seed: int, count: int = 800) -> Rows:
    """Rows in which outlet is inlet less loss, and time goes on by two seconds an event."""
    rng = np.random.default_rng(seed)
    seqs = np.cumsum(rng.integers(1, 4, count))
    inlet, loss = rng.integers(100, 900, count), rng.integers(0, 9, count)
    columns: dict[str, Any] = {
        "operator": [OPERATORS[at] for at in rng.integers(0, 3, count)],
        "occurred_at": 1_767_571_200_000_000 + seqs * 2_000_000,
        "inlet": inlet.astype(np.int32),
        "loss": loss.astype(np.int32),
        "outlet": (inlet - loss).astype(np.int32),
        "state": [(None, "läuft", "steht")[at] for at in rng.integers(0, 3, count)],
    }
    return Rows(seqs.astype(np.int64), columns)


def test_a_plan_finds_what_columns_have_in_common() -> None:
    sample = rows(1)
    plan = learn(PRESS, {"seq": sample.seqs, **sample.columns}, "default", 4_000)
    packing.check_plan(plan, PRESS)
    columns = wire.columns(PRESS)
    found = {columns[planned.column].name: planned for planned in plan.columns}
    terms = {
        name: {columns[term.column].name: term.factor for term in planned.terms} for name, planned in found.items()
    }
    assert terms["occurred_at"] == {"seq": 2}
    related = [terms[name] for name in ("inlet", "loss", "outlet") if terms[name]]
    assert related in ([{"outlet": 1, "loss": 1}], [{"loss": 1, "outlet": 1}], [{"inlet": 1, "loss": -1}])
    assert set(found["state"].texts) == {"läuft", "steht"}
    assert found["operator"].texts == ()


def test_a_clock_that_goes_in_leaps_gives_a_plan_that_can_be_read_again() -> None:
    sample = rows(1)
    leaps = {"occurred_at": sample.seqs * 3_600_000_001}  # an hour an event, and never a whole millisecond
    plan = learn(PRESS, {"seq": sample.seqs, **sample.columns, **leaps}, "default", 800)
    assert packing.embedded_plan(packing.with_plan(b"", plan)) == plan


def test_a_trained_dictionary_helps_on_rows_that_it_has_not_seen() -> None:
    trained = train(PRESS, [rows(1), rows(2)], "acme")
    assert [outcome.batch_rows for outcome in trained.outcomes] == [10, 50, 200]
    assert all(outcome.after_bytes < 0.7 * outcome.before_bytes for outcome in trained.outcomes)
    assert zstandard.ZstdCompressionDict(trained.data).dict_id() == trained.id >= ID_MIN
    plan = packing.plan_of(PRESS, trained.data)
    assert plan.tenant == trained.tenant == "acme"
    again, other = train(PRESS, [rows(1), rows(2)], "acme"), train(PRESS, [rows(1), rows(2)], "other")
    assert (again.id, again.data) == (trained.id, trained.data)
    assert other.id != trained.id


def test_a_dictionary_holds_no_personal_text() -> None:
    data = train(PRESS, [rows(1), rows(2)]).data
    assert [name for name in OPERATORS if name.removeprefix("user-").encode() in data] == []
    assert "läuft".encode() in data


def test_masking_keeps_form_and_repetition() -> None:
    columns = {"operator": ["user-王伟7", "user-Anna", None, "user-王伟7"], "state": ["user-Anna"] * 4}
    found = masked(PRESS, columns, Random(1))
    assert found["state"] == columns["state"]
    first, second, none, fourth = found["operator"]
    assert (none, first) == (None, fourth)
    assert first.startswith("user-")
    assert second.startswith("user-")
    assert (len(first), first[-1].isdigit(), second[5].isupper()) == (8, True, True)
    assert {first, second}.isdisjoint(columns["operator"])


def test_too_few_rows_and_rows_without_form_are_refused() -> None:
    with pytest.raises(DictionaryError, match="expected at least 400 rows, found 30"):
        train(PRESS, [rows(1, 30)])
    noise = replace(PRESS, fields=(Field(1, "x", FieldType.DOUBLE, True),))
    rng = np.random.default_rng(7)
    one = Rows(np.arange(500, dtype=np.int64), {"x": rng.random(500) * 10.0 ** rng.integers(-300, 300, 500)})
    with pytest.raises(DictionaryError, match=r"press: it does not help: bytes per held-out event .* at 10"):
        train(noise, [one])


def clicks_file(folder: Path, count: int = 600) -> Path:
    """Write events of the shipped clicks contract."""
    rng = Random(3)
    times = iso_times(np.arange(count) * 3_000_000 + 1_767_571_200_000_000)
    events = [
        {
            "user_id": f"customer-{rng.randrange(40)}",
            "session_id": f"visit-{at // 9}",
            "event": rng.choice(("view", "download", "print")),
            "object": rng.choice(("emc-report.pdf", "IP67.pdf", "预算.xlsx")),
            "dwell_s": rng.randrange(900) / 10,
            "occurred_at": time,
        }
        for at, time in enumerate(times)
    ]
    path = folder / "web-01.jsonl"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, events)) + b"\n")
    return path


def test_the_command_trains_says_what_it_saves_and_refuses_to_publish_for_another_tenant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "clicks.zdict"
    assert (
        run(["dictionary", "train", "clicks", str(clicks_file(tmp_path)), "-o", str(output), "--tenant", "acme"]) == 0
    )
    said = capsys.readouterr().out
    assert "held-out events in batches of  10:" in said
    number, plan, data = read_dictionary(output)
    assert (plan.tenant, f"dictionary {number} for clicks of tenant acme, {len(data)} bytes" in said) == ("acme", True)
    assert run(["dictionary", "publish", str(output), "--state-dir", str(tmp_path / "state")]) == 1
    assert "its rows are of tenant acme, this is tenant default" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("contract", "content", "says"),
    [
        ("clicks", b'{"user_id": 7}\n', "1 of 1 events are not of contract clicks, the first in line 1"),
        ("clocks", b"", "contract 'clocks': expected one of"),
        ("clicks", b"", "expected at least 400 rows, found 0"),
    ],
)
def test_what_cannot_be_trained_on_gets_one_line(
    contract: str, content: bytes, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(content)
    assert run(["dictionary", "train", contract, str(path), "-o", str(tmp_path / "d")]) == 1
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x37\xa4\x30\xec\x00\x80\x00\x00nothing", b"FLPL"])
def test_what_is_no_dictionary_is_not_published(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "d.zdict"
    path.write_bytes(content)
    assert run(["dictionary", "publish", str(path)]) == 1
    assert "expected a trained dictionary" in capsys.readouterr().err

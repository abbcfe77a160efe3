"""The quality process over real tables on disk: what it sees of them, what it says, and what it remembers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lakehouse.errors import EngineError, LogUnavailableError
from lakehouse.quality.reading import committed_since
from tests.lakehouse.frames import CONTRACTS, clicks, frame, telemetry
from tests.lakehouse.staging import TABLE, TELEMETRY, Stage


class Engine:
    """Answers every statement that has one aggregate for all rules with nothing wrong."""

    def __init__(self, *failures: EngineError | None) -> None:
        self.failures = list(failures)
        self.asked: list[str] = []

    def row(self, sql: str) -> Sequence[Any]:
        self.asked.append(sql)
        if self.failures and (failure := self.failures.pop(0)) is not None:
            raise failure
        depth = columns = 0
        for character in sql.removeprefix("SELECT ").split(" FROM ")[0]:
            depth += {"(": 1, ")": -1}.get(character, 0)
            columns += character == "," and depth == 0
        return [7, *([7, 0] * (columns // 2))]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.close()


def test_every_committed_row_is_looked_at_once_and_the_look_is_a_row(stage: Stage) -> None:
    stage.commit(telemetry(range(40)))
    stage.step()
    stage.step()
    stage.commit(telemetry(range(40, 55)))
    stage.step()
    found = [row for row in stage.results() if row["checked_table"] == TABLE]
    assert [(row["rule"], row["rows_committed"], row["rows_checked"], row["met"]) for row in found] == [
        ("*", 40, 40, True),
        ("*", 15, 15, True),
    ]
    assert found[0]["origin"] == "lake-quality"
    assert found[0]["rules"] > 10
    assert stage.status.not_met[TABLE] == ()
    stage.step()  # its own table is none of those that it looks at
    assert not [row for row in stage.results() if row["contract"] == "data_quality"]


def test_a_planted_fault_is_found_named_and_shown(stage: Stage) -> None:
    stage.commit(telemetry(range(20)))
    stage.step()
    stage.plant(range(100, 103), f3=-200_000)
    stage.step()
    (fault,) = [row for row in stage.results() if row["rule"] == "f3.range"]
    assert (fault["met"], fault["rows_checked"], fault["rows_failed"], fault["expected_by"]) == (
        False,
        3,
        3,
        "contract",
    )
    assert fault["words"] == "f3 is -100000.0 to 100000.0"
    assert stage.status.not_met[TABLE] == ("f3.range",)
    assert "f3 is -100000.0 to 100000.0" in stage.page()
    assert "1 rules not met" in stage.page("index")
    stage.commit(telemetry(range(20, 30)))
    stage.step()
    assert stage.status.not_met[TABLE] == ()


def test_rows_that_a_merge_writes_again_are_not_looked_at_again(stage: Stage) -> None:
    looked = 0
    for number in range(20):  # every eighth commit rewrites the files of the seven before
        stage.commit(telemetry(range(number * 5, number * 5 + 5)))
        if number % 3 == 2:
            stage.step()
    stage.step()
    looked = sum(row["rows_checked"] for row in stage.results() if row["checked_table"] == TABLE)
    assert looked == 100
    assert sum(row["rows_committed"] for row in stage.results() if row["checked_table"] == TABLE) == 100


def test_of_many_rows_a_bounded_sample_is_read(stage: Stage) -> None:
    for number in range(3):
        stage.commit(telemetry(range(number * 400, number * 400 + 400)))
    found = committed_since(stage.catalogs[0].load_table(TELEMETRY.table), 0, 500)
    assert found is not None
    assert found.rows_committed == 1_200
    assert 0 < found.sample.num_rows <= 500


def test_a_restart_goes_on_where_it_was_and_a_crash_repeats_a_look(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.commit(telemetry(range(10)))
    stage.step()
    stage.restart()
    stage.commit(telemetry(range(10, 14)))

    def lost(_batches: object) -> None:
        raise LogUnavailableError("the log is away")

    monkeypatch.setattr(stage.watcher, "_send", lost)
    with pytest.raises(LogUnavailableError):
        stage.step()
    stage.restart()
    stage.step()
    found = [row["rows_checked"] for row in stage.results() if row["checked_table"] == TABLE]
    assert found == [10, 4]


def test_an_outage_of_the_log_does_not_lose_a_look(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.commit(telemetry(range(10)))
    sound = stage.send

    def lost(_batches: object) -> None:
        raise LogUnavailableError("the log is away")

    monkeypatch.setattr(stage.watcher, "_send", lost)
    with pytest.raises(LogUnavailableError):
        stage.step()
    monkeypatch.setattr(stage.watcher, "_send", sound)
    stage.step()
    assert [row["rows_checked"] for row in stage.results() if row["checked_table"] == TABLE] == [10]


def test_an_analysts_file_is_picked_up_and_a_broken_one_is_named(stage: Stage) -> None:
    file = stage.folder / "expectations" / "telemetry.yaml"
    rule = "{type: expect_column_values_to_be_between, kwargs: {column: f1, max_value: 10}, meta: {name: small}}"
    stage.step()
    file.write_text(f"contract: telemetry\nexpectations:\n  - {rule}\n")
    stage.commit(telemetry(range(1_000, 1_003), f1=11))
    stage.step()
    (found,) = [row for row in stage.results() if row["rule"] == "small"]
    assert (found["expected_by"], found["rows_failed"]) == ("analyst", 3)
    file.write_text("contract: <b>telemetry")
    stage.commit(telemetry(range(1_003, 1_006), f1=11))
    stage.step()
    assert len([row for row in stage.results() if row["rule"] == "small"]) == 2
    assert set(stage.status.broken_files) == {"telemetry.yaml"}
    assert "telemetry.yaml" in stage.status.last_error
    assert "telemetry.yaml" in stage.page()
    assert "<b>" not in stage.page("index")


def test_personal_values_are_not_shown(stage: Stage) -> None:
    stage.world.broker.batch("collector-1", frame(CONTRACTS["clicks"], clicks(range(6))))
    stage.world.drain(stage.ingest)
    personal = [f.name for f in CONTRACTS["clicks"].fields if f.classification == "personal"]
    rule = f"{{type: expect_column_values_to_be_in_set, kwargs: {{column: {personal[0]}, value_set: [nobody]}}}}"
    (stage.folder / "expectations" / "clicks.yaml").write_text(f"contract: clicks\nexpectations:\n  - {rule}\n")
    stage.step()
    (found,) = [row for row in stage.results() if row["expected_by"] == "analyst" and row["rule"] != "*"]
    assert (found["rows_failed"], found["examples"]) == (6, "[]")
    assert "customer-" not in stage.page("lake_b.behaviour.clicks")


def test_the_whole_table_is_asked_when_it_is_due_and_a_question_that_fails_is_a_finding(stage: Stage) -> None:
    stage.engine = Engine(None, EngineError("too large"))
    stage.restart()
    stage.commit(telemetry(range(7)))
    stage.step()
    whole = [row for row in stage.results() if row["scope"] == "whole"]
    assert {row["rule"]: row["met"] for row in whole}["identity.unique"] is False
    assert {row["rule"]: row["met"] for row in whole}["f3.range"] is True
    assert any("could not be asked: too large" in row["words"] for row in whole)
    asked = len(stage.engine.asked)
    stage.step()
    assert len(stage.engine.asked) == asked
    stage.world.clock.advance(3_601)
    stage.step()
    assert len(stage.engine.asked) > asked


def test_an_engine_that_is_away_is_no_finding_and_is_asked_again(stage: Stage) -> None:
    stage.engine = Engine(*[EngineError("away")] * 2)
    stage.restart()
    stage.commit(telemetry(range(7)))
    stage.step()
    assert not [row for row in stage.results() if row["scope"] == "whole"]
    assert "away" in stage.status.last_error
    stage.world.clock.advance(1_801)
    stage.step()
    assert [row for row in stage.results() if row["scope"] == "whole"]


def test_a_memory_that_cannot_be_read_costs_a_second_look(stage: Stage) -> None:
    stage.commit(telemetry(range(5)))
    stage.step()
    (stage.folder / "memory.json").write_text("[")
    stage.restart()
    stage.step()
    assert [row["rows_checked"] for row in stage.results() if row["checked_table"] == TABLE] == [5, 5]

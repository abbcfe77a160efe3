"""The benchmark that kills parts of the running stack: its plan, its readings, its picture."""

import datetime
import gzip
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from benchmarks import __main__ as program
from benchmarks.chaos.kills import AGENT, KINDS, PAUSE_S, Killed, plan
from benchmarks.chaos.readings import CYCLE_S, SENSORS, make_readings, read_cycles
from benchmarks.chaos.timeline import Moment, draw
from benchmarks.detection.source import DATA_DIR_VARIABLE
from benchmarks.edge_chaos import KILLS, KILLS_VARIABLE, SEED
from contracts.errors import OperatorMustActError
from infra.datasets import FileEntry, Manifest
from infra.datasets.typed_rows import read_replay
from tests.edge_agent.plant import CONTRACTS


def write_rig(folder: Path, cycles: int) -> np.ndarray:
    """Write a record as the set has it; return its values."""
    values = np.round(np.random.default_rng(3).uniform(0, 200, (cycles, CYCLE_S, len(SENSORS))), 3)
    folder.mkdir(parents=True)
    for place, name in enumerate(SENSORS):
        with gzip.open(folder / f"{name}.txt.gz", "wt") as file:
            np.savetxt(file, values[:, :, place], delimiter="\t", fmt="%.3f")
    return values


NOTHING = Manifest(1, 1.0, datetime.datetime(2026, 1, 5, tzinfo=datetime.UTC), ())


def test_it_can_be_asked_for_by_name() -> None:
    assert "edge-chaos" in program.names()
    assert "chaos" not in program.names()


def test_a_seed_decides_whom_and_when() -> None:
    planned = plan(SEED, KILLS, 5)
    assert planned == plan(SEED, KILLS, 5) != plan(SEED + 1, KILLS, 5)
    assert {kill.kind for kill in planned} == set(KINDS)
    assert {kill.agent for kill in planned if kill.kind == AGENT} == set(range(5))
    assert all(PAUSE_S[0] <= kill.pause_s <= PAUSE_S[1] for kill in planned)


def test_every_reading_of_the_rig_is_dealt_to_one_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "sets"))
    values = write_rig(tmp_path / "sets" / "hydraulic", 12)
    readings = make_readings(tmp_path / "out", NOTHING, tmp_path)
    assert readings.is_foreign
    assert readings.rows == 12 * CYCLE_S == sum(len(file.read_bytes().splitlines()) for _, file, _ in readings.files)
    device, file, _ = readings.files[1]
    rows = read_replay(file, CONTRACTS["telemetry"], device).to_pylist()
    assert rows[0]["f1"] == round(values[1, 0, 0] * 100)
    assert rows[CYCLE_S]["f8"] == round(values[6, 0, 7] * 100)
    assert [row["f9"] for row in rows[: CYCLE_S + 1]] == [*range(CYCLE_S), 0]


def test_a_record_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    write_rig(tmp_path / "rig", 3)
    with gzip.open(tmp_path / "rig" / "CE.txt.gz", "wt") as file:
        file.write("1\t2\t3\n")
    with pytest.raises(OperatorMustActError, match="60 readings a cycle"):
        read_cycles(tmp_path / "rig")


def test_without_the_set_the_demos_record_is_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "none"))
    entries = tuple(
        FileEntry(f"press-{number}.jsonl", "replay", 10 + number, 0, "", {}, "telemetry", f"press-{number}")
        for number in range(7)
    )
    readings = make_readings(tmp_path / "out", replace(NOTHING, files=entries), tmp_path)
    assert not readings.is_foreign
    assert [device for device, _, _ in readings.files] == [f"press-{number}" for number in range(5)]
    assert [member.flow_s for member in readings.members(60.0)] == [60.0] * 5


def test_a_number_of_kills_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(KILLS_VARIABLE, "几个")
    assert program.main(["edge-chaos"]) == 1
    assert "expected a number of kills" in capsys.readouterr().err


def test_the_picture_shows_rows_and_kills(tmp_path: Path) -> None:
    killed = [Killed(10.0 + place, kind, kind, 1) for place, kind in enumerate(KINDS)]
    draw(tmp_path / "chaos.png", 5.0, [Moment(6.0, 1), Moment(12.0, 30)], killed)
    assert (tmp_path / "chaos.png").stat().st_size > 10_000

"""Pieces behind the demo's input: thinning, times, generators under any seed, and sources that are damaged."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.datasets import FractionError, SourceFileError, Sources, write_datasets
from infra.datasets.__main__ import main
from infra.datasets.clicks import read_clicks
from infra.datasets.crm import generate_crm
from infra.datasets.purchases import read_purchases
from infra.datasets.replay import iso_times, thinned
from infra.datasets.service_history import generate_history
from infra.setup import paths

SOURCES = Sources(paths.shuttle_csv_gz(), paths.cdnow_purchases_txt(), paths.shop_clicks_csv_gz())


@given(st.integers(0, 500), st.floats(0.01, 1.0))
def test_thinning_keeps_order_and_share(count: int, fraction: float) -> None:
    kept = thinned(count, fraction)
    assert np.all(np.diff(kept) > 0)
    assert abs(len(kept) - count * fraction) <= 4
    assert len(thinned(count, 1.0)) == count


@given(st.lists(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)), max_size=5))
def test_times_read_back_to_the_microsecond(moments: list[datetime]) -> None:
    stamped = [moment.replace(tzinfo=UTC) for moment in moments]
    texts = iso_times(np.array(moments, dtype="datetime64[us]").astype(np.int64))
    assert [datetime.fromisoformat(text) for text in texts] == stamped


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.001, 0.02))
def test_any_seed_gives_a_history_that_is_consistent(seed: int, fraction: float) -> None:
    entries = [
        msgspec.to_builtins(event) for replay in generate_history(10**15, seed, fraction) for event in replay.events
    ]
    when = {entry["entry_id"]: entry["occurred_at"] for entry in entries}
    assert len(when) == len(entries)
    assert all(when[e["supersedes"]] < e["occurred_at"] for e in entries if "supersedes" in e)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_any_seed_gives_every_account_a_machine(seed: int) -> None:
    rows, content = generate_crm(["C-00001"], seed)["assets"]
    owners = {line.split(",")[1] for line in content.decode().splitlines()[1:]}
    assert (rows, len(owners)) == (1_000, 500)


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5, float("nan")])
def test_impossible_share_is_refused(fraction: float, tmp_path: Path) -> None:
    with pytest.raises(FractionError, match="above 0"):
        write_datasets(SOURCES, tmp_path, fraction=fraction)


def test_damaged_sources_are_named(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.write_text("id date\n1 2 3\n")
    with pytest.raises(SourceFileError, match="4 numbers"):
        read_purchases(damaged, 1.0)
    damaged.write_text("id date cds value\n1 19971301 1 1.0\n")
    with pytest.raises(SourceFileError, match="YYYYMMDD"):
        read_purchases(damaged, 1.0)
    with pytest.raises(SourceFileError, match="gzipped"):
        read_clicks(damaged, 1, 1.0)


def test_command_says_in_one_line_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), "--clicks", str(tmp_path / "absent")]) == 1
    assert capsys.readouterr().err.count("\n") == 1

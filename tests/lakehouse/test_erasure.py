"""A subject is erased: no row, bound, old snapshot or forgotten file has it, whatever happens on the way."""

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.manifest import ManifestEntryStatus

from contracts.contract import Contract
from lakehouse.history import ensure_history
from lakehouse.iceberg import state_location, state_snapshot
from lakehouse.maintenance import merging
from lakehouse.maintenance.compaction import compact
from lakehouse.maintenance.erasure import Erased, Stage, erase, find, tables_of
from lakehouse.maintenance.listing import Manifests
from lakehouse.maintenance.removal import remove_rows
from lakehouse.maintenance.removals import TABLE, is_of, removals_table, subject_hash
from lakehouse.maintenance.subjects import About, Subject, bucket_of, quoted, rule_of
from lakehouse.maintenance.sweep import FILE_GRACE_S
from lakehouse.maintenance.verification import verify
from tests.lakehouse.frames import CONTRACTS, clicks
from tests.lakehouse.memory import ManualClock
from tests.lakehouse.shelf import Shelf

CHEN = Subject("customer", "客户-陈")
ROWS = 30
MINE = 10  # of each commit


class Crash(Exception):  # noqa: N818 - it stands for the end of a process and not for an error
    """Ends a process where it stands."""


def visits(first: int) -> list[dict[str, Any]]:
    """A commit of clicks by three customers, a third of them by the subject."""
    names = (CHEN.id, "customer-1", "客户-陈二")
    return [row | {"user_id": names[row["seq"] % 3]} for row in clicks(range(first, first + ROWS))]


@pytest.fixture(params=["tail", "history"])
def shelf(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    """Rows in four files of the tail, or as many in the history and one more commit; older snapshots have them too."""
    made = Shelf(tmp_path)
    for n in range(4):
        made.commit(visits(n * ROWS))
    if request.param == "history":
        monkeypatch.setattr(merging, "HISTORY_BYTES_MIN", 1)
        monkeypatch.setattr(merging, "MERGE_FILES_MIN", 4)
        ensure_history(made.keeper)
        assert compact(made.keeper, quiet=True).files == 4
        made.commit(visits(4 * ROWS))
    yield made
    made.close()


@pytest.fixture
def clock(tmp_path: Path) -> ManualClock:
    """The time of the disk, so that files have an age."""
    return ManualClock(int(tmp_path.stat().st_mtime * 1_000) + 1_000)


def run(shelf: Shelf, clock: ManualClock, **more: Any) -> Erased:
    ((table, rule),) = tables_of(shelf.catalog, CHEN)
    return erase(shelf.catalog, table, rule, "数据保护官", clock, **more)


def commits(shelf: Shelf) -> int:
    return len(shelf.seqs()) // ROWS


def traces(shelf: Shelf) -> list[str]:
    """Files of the table that have the subject's name in them, once what is packed is unpacked."""
    found = []
    for path in shelf.on_disk():
        if path.suffix == ".parquet":
            text = str(pq.read_table(path).to_pylist())
        elif path.suffix == ".avro":
            text = avro_text(path)
        else:
            text = path.read_bytes().decode("utf-8", "replace")
        if repr(CHEN.id)[1:-1] + "'" in text or f'"{CHEN.id}"' in text:
            found.append(path.name)
    return found


def avro_text(path: Path) -> str:
    """All of a manifest's records as DuckDB reads Avro, which knows nothing of tables."""
    import duckdb

    from tests.lakehouse.judge import EXTENSIONS_DIR

    with duckdb.connect(config={"extension_directory": str(EXTENSIONS_DIR)}) as engine:
        engine.execute("LOAD avro")
        rows = engine.execute(f"SELECT * FROM read_avro('{path}')").fetchall()
    return str(rows).replace(repr(CHEN.id.encode()), repr(CHEN.id))


def test_the_rows_are_gone_from_every_file_snapshot_and_bound(shelf: Shelf, clock: ManualClock) -> None:
    before = shelf.ask("SELECT count(*) FROM rows WHERE user_id <> '客户-陈'")
    count = commits(shelf)
    assert traces(shelf)
    state = state_location(state_snapshot(shelf.load()))
    done = run(shelf, clock)
    assert done.rows == count * MINE
    assert done.verified
    assert traces(shelf) == []
    assert shelf.ask("SELECT count(*) FROM rows") == before
    assert shelf.ask("SELECT count(DISTINCT user_id) FROM rows") == [(2,)]
    assert state_location(state_snapshot(shelf.load())) == state
    for snapshot in shelf.load().snapshots():
        names = shelf.load().scan(snapshot_id=snapshot.snapshot_id).to_arrow().column("user_id").to_pylist()
        assert CHEN.id not in names
    shelf.commit(clicks(range(900, 903)))
    assert len(shelf.seqs()) == before[0][0] + 3


def test_a_dry_run_counts_and_changes_nothing(shelf: Shelf) -> None:
    before = shelf.load().metadata_location
    ((table, rule),) = tables_of(shelf.catalog, CHEN)
    found = find(shelf.catalog, table, rule)
    assert (found.table, found.rows) == ("lake_b.behaviour.clicks", commits(shelf) * MINE)
    assert shelf.load().metadata_location == before


def test_a_repeat_changes_nothing_and_finds_what_came_later(shelf: Shelf, clock: ManualClock) -> None:
    run(shelf, clock)
    before = shelf.load().metadata_location
    again = run(shelf, clock)
    assert (again.rows, again.snapshots, again.files_removed, again.verified) == (0, 0, 0, True)
    assert shelf.load().metadata_location == before
    shelf.commit(visits(600))
    late = run(shelf, clock)
    assert (late.rows, late.verified) == (MINE, True)
    assert traces(shelf) == []


@pytest.mark.parametrize("stage", Stage, ids=lambda stage: stage.value)
def test_a_crash_after_any_step_is_finished_by_a_repeat(shelf: Shelf, clock: ManualClock, stage: Stage) -> None:
    def fault(at: Stage) -> None:
        if at is stage:
            raise Crash

    others = shelf.ask("SELECT count(*) FROM rows WHERE user_id <> '客户-陈'")
    with pytest.raises(Crash):
        run(shelf, clock, fault=fault)
    clock.advance(2 * FILE_GRACE_S)
    assert run(shelf, clock).verified
    assert traces(shelf) == []
    assert shelf.ask("SELECT count(*) FROM rows") == others


@pytest.mark.parametrize("stage", [Stage.NOTED, Stage.ROWS_REMOVED, Stage.STATE_NAMED], ids=lambda stage: stage.value)
def test_a_writer_goes_on_and_its_other_rows_stay(shelf: Shelf, clock: ManualClock, stage: Stage) -> None:
    beside: list[str] = []

    def fault(at: Stage) -> None:
        if at is stage and not beside:
            beside.append(shelf.commit(clicks(range(600, 603))))

    others = shelf.ask("SELECT count(*) FROM rows WHERE user_id <> '客户-陈'")[0][0]
    assert run(shelf, clock, fault=fault).verified
    assert len(shelf.seqs()) == others + 3
    assert state_location(state_snapshot(shelf.load())) == beside[0]


def test_rows_that_arrive_during_it_are_reported_and_a_repeat_removes_them(shelf: Shelf, clock: ManualClock) -> None:
    def fault(at: Stage) -> None:
        if at is Stage.SNAPSHOTS_DROPPED:
            shelf.commit(visits(600))

    done = run(shelf, clock, fault=fault)
    assert not done.verified
    assert any(place.startswith("row in ") for place in done.remaining)
    assert run(shelf, clock).verified


def test_a_file_that_a_writer_may_still_commit_is_pending_and_one_that_it_left_is_removed(
    shelf: Shelf, clock: ManualClock
) -> None:
    left = Path(shelf.writer.location().removeprefix("file://")) / "data" / "left.parquet"
    some = next(path for _, path in shelf.files())
    pq.write_table(pq.read_table(some.removeprefix("file://")), left)
    if CHEN.id not in pq.read_table(left).column("user_id").to_pylist():
        rows = pq.read_table(left)
        at = rows.schema.get_field_index("user_id")
        field = rows.schema.field(at)
        pq.write_table(rows.set_column(at, field, pa.array([CHEN.id] * len(rows), field.type)), left)
    done = run(shelf, clock)
    assert not done.verified
    assert [place.split(",")[0].endswith("left.parquet") for place in done.pending] == [True]
    assert left.exists()
    clock.advance(2 * FILE_GRACE_S)
    assert run(shelf, clock).verified
    assert not left.exists()


@pytest.mark.parametrize("traceless", [True, False])
def test_the_metadata_lists_what_went_only_where_it_may(shelf: Shelf, clock: ManualClock, traceless: bool) -> None:
    ((table, rule),) = tables_of(shelf.catalog, CHEN)
    remove_rows(table, rule, traceless)
    current, manifests = table.current_snapshot(), Manifests(table.io)
    assert current is not None
    statuses = {entry.status for manifest in manifests.of(current) for entry in manifests.entries(manifest)}
    assert (ManifestEntryStatus.DELETED in statuses) is not traceless
    assert run(shelf, clock).verified
    assert traces(shelf) == []


def test_a_tag_does_not_keep_the_rows(shelf: Shelf, clock: ManualClock) -> None:
    table = shelf.load()
    current = table.metadata.current_snapshot_id
    assert current is not None
    table.manage_snapshots().create_tag(current, "年终").commit()
    assert run(shelf, clock).verified
    assert "年终" not in shelf.load().metadata.refs
    assert traces(shelf) == []


def test_the_table_of_removals_says_who_and_when_and_not_whose(shelf: Shelf, clock: ManualClock) -> None:
    count = commits(shelf)
    run(shelf, clock)
    rows = removals_table(shelf.catalog).scan().to_arrow().sort_by("finished").to_pylist()
    assert [row["finished"] for row in rows] == [False, True]
    assert {row["actor"] for row in rows} == {"数据保护官"}
    assert [row["rows"] for row in rows] == [0, count * MINE]
    assert rows[1]["verified"]
    assert rows[1]["removed_at"].astimezone(dt.UTC).timestamp() == pytest.approx(clock.now_ms() / 1_000)
    assert CHEN.id not in json.dumps(rows, default=str, ensure_ascii=False)
    assert all(is_of(row["subject"], CHEN.kind, CHEN.id) for row in rows)
    assert not is_of(rows[0]["subject"], CHEN.kind, "客户-陈二")
    assert TABLE == "ops.removals"


def test_verification_believes_nothing(shelf: Shelf, clock: ManualClock) -> None:
    shelf.commit([row | {"user_id": CHEN.id} for row in clicks(range(700, 703))])
    ((table, rule),) = tables_of(shelf.catalog, CHEN)
    found = verify(table, rule, clock.now_ms() / 1_000)
    assert any(place.startswith("row in ") for place in found.remaining)
    assert any(place.startswith("bound in ") for place in found.remaining)


def test_the_quarantine_is_searched_for_events_that_mention_the_subject(tmp_path: Path, clock: ManualClock) -> None:
    shelf = Shelf(tmp_path, CONTRACTS["quarantine"])
    texts = [
        json.dumps({"user_id": CHEN.id, "event": "下载"}, ensure_ascii=False),
        json.dumps({"user_id": CHEN.id, "event": "print"}),
        json.dumps({"user_id": CHEN.id + "二"}, ensure_ascii=False),
    ]
    fixed = {"contract": "clicks", "refused_version": "1.0.0", "refused_epoch": 1, "refused_by": "lake", "rule": "r"}
    shelf.commit([fixed | {"seq": n, "refused_seq": n, "original": text} for n, text in enumerate(texts)])
    done = run(shelf, clock)
    assert (done.rows, done.verified) == (2, True)
    assert shelf.seqs() == [2]


def test_a_table_of_many_kinds_loses_only_the_subjects_own(tmp_path: Path, clock: ManualClock) -> None:
    shelf = Shelf(tmp_path, CONTRACTS["decisions"])
    common: dict[str, Any] = {
        name: 0 if kind in ("long", "int", "timestamptz") else "x"
        for name, kind in ((f.name, f.type.value) for f in CONTRACTS["decisions"].fields)
    }
    kinds = ("customer", "asset", "customer")
    ids = (CHEN.id, CHEN.id, "other")
    shelf.commit([common | {"seq": n, "subject_kind": kind, "subject": ids[n]} for n, kind in enumerate(kinds)])
    done = run(shelf, clock)
    assert (done.rows, done.verified) == (1, True)
    assert shelf.seqs() == [1, 2]


def rule(contract: Contract, folder: Path, subject: Subject) -> About | None:
    folder.mkdir(exist_ok=True)
    shelf = Shelf(folder, contract)
    try:
        return rule_of(shelf.load().metadata, subject)
    finally:
        shelf.close()


def test_which_tables_may_have_a_subject_follows_from_their_contracts(tmp_path: Path) -> None:
    mine = rule(CONTRACTS["clicks"], tmp_path / "a", CHEN)
    assert mine is not None
    assert mine.columns == ("user_id",)
    assert rule(CONTRACTS["clicks"], tmp_path / "a", Subject("asset", CHEN.id)) is None
    assert rule(CONTRACTS["telemetry"], tmp_path / "a", CHEN) is None
    history = rule(CONTRACTS["service_history"], tmp_path / "a", CHEN)
    assert history is not None
    assert history.own is None
    assert history.mentions


@given(st.text(max_size=20))
def test_a_name_is_found_in_every_way_json_writes_it(name: str) -> None:
    for text in (json.dumps({"a": name}), json.dumps({"a": name}, ensure_ascii=False)):
        assert any(word in text for word in quoted(name))


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_hash_is_of_one_subject_only(kind: str, name: str) -> None:
    hashed = subject_hash(kind, name)
    assert is_of(hashed, kind, name)
    assert not is_of(hashed, kind + name[:1], name[1:]) or not name
    assert hashed != subject_hash(kind, name)


def test_the_bucket_of_a_name_is_icebergs() -> None:
    assert bucket_of("asset-1") == 5

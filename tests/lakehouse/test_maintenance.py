"""Merging and sweeping: the rows stay, a writer goes on, nothing that somebody needs is removed."""

import threading
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestEntry, ManifestFile
from pyiceberg.table import Table

from lakehouse.catalog import open_catalog
from lakehouse.expiry import Kept, expired
from lakehouse.maintenance import keeper as keeping
from lakehouse.maintenance import merging
from lakehouse.maintenance.compaction import compact
from lakehouse.maintenance.keeper import PASSES_PER_SWEEP, QUIET_AFTER_MS, Doomed, Keeper
from lakehouse.maintenance.merging import (
    MERGE_BYTES_MAX,
    MERGE_FILES_MAX,
    TIER_BYTES,
    File,
    merge,
)
from lakehouse.maintenance.sweep import READER_GRACE_S, Unneeded, references, remove, sweep, unreferenced
from lakehouse.status import MaintenanceStatus
from tests.lakehouse.frames import CONTRACTS, frame, telemetry
from tests.lakehouse.world import World, catalogs

TELEMETRY = CONTRACTS["telemetry"]
LATER_S = 10_000.0


def commits(world: World, first: int, count: int, rows: int = 20) -> None:
    ingest = world.ingests[-1] if world.ingests else world.start()
    for n in range(first, first + count):
        world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(n * rows, (n + 1) * rows))))
        ingest.step()


def scattered(world: World, first: int, count: int) -> None:
    """Commits of as many processes: none of them knows the files of the others, and so merges none."""
    for n in range(first, first + count):
        world.start()
        commits(world, n, 1)


def table_of(world: World) -> Table:
    return open_catalog(catalogs(world.folder)[0]).load_table(TELEMETRY.table)


def files(table: Table) -> list[str]:
    return [task.file.file_path for task in table.scan().plan_files()]


def on_disk(folder: Path) -> set[str]:
    return {str(path) for path in (folder / "lake_a" / "field" / "telemetry").rglob("*") if path.is_file()}


def test_merging_keeps_the_rows_and_sorts_them(world: World) -> None:
    scattered(world, 0, 9)
    before = world.rows(TELEMETRY)
    table = table_of(world)
    assert compact(table, quiet=True).files == 9
    assert len(files(table)) == 1
    assert world.rows(TELEMETRY).equals(before)
    (path,) = files(table)
    stored = pq.read_table(path.removeprefix("file://")).to_pylist()
    assert [(r["asset_id"], r["occurred_at"]) for r in stored] == sorted(
        (r["asset_id"], r["occurred_at"]) for r in stored
    )
    assert compact(table, quiet=True).files == 0


def test_the_writer_goes_on_across_a_merge_and_so_does_its_successor(world: World) -> None:
    scattered(world, 0, 9)
    compact(table_of(world), quiet=True)
    commits(world, 9, 2)
    world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(40))))
    world.drain(world.start())
    commits(world, 11, 1)
    assert [r["seq"] for r in world.records("telemetry")] == list(range(240))


def test_a_merge_that_loses_the_race_repeats_itself(world: World) -> None:
    scattered(world, 0, 9)
    table = table_of(world)
    inner, raced = table.catalog.commit_table, threading.Event()

    def racing(*arguments: object) -> object:
        if not raced.is_set():
            raced.set()
            commits(world, 9, 1)
        return inner(*arguments)  # type: ignore[arg-type]

    table.catalog.commit_table = racing  # type: ignore[method-assign, assignment]
    merged = compact(table, quiet=True)
    assert (merged.files, merged.conflicts) == (9, 1)
    assert [r["seq"] for r in world.records("telemetry")] == list(range(200))


def test_a_merge_whose_inputs_are_gone_is_given_up(world: World) -> None:
    scattered(world, 0, 9)
    late = table_of(world)
    inner, raced = late.catalog.commit_table, threading.Event()

    def racing(*arguments: object) -> object:
        if not raced.is_set():
            raced.set()
            assert compact(table_of(world), quiet=True).files == 9
        return inner(*arguments)  # type: ignore[arg-type]

    late.catalog.commit_table = racing  # type: ignore[method-assign, assignment]
    assert compact(late, quiet=True).files == 0
    assert [r["seq"] for r in world.records("telemetry")] == list(range(180))


def test_the_sweep_removes_what_nothing_refers_to_and_nothing_else(world: World) -> None:
    commits(world, 0, 20)
    table = table_of(world)
    compact(table, quiet=False)
    commits(world, 20, 33)
    orphan = world.folder / "lake_a" / "field" / "telemetry" / "data" / "orphan.parquet"
    orphan.write_bytes(b"left by a crash")
    now_s = world.folder.stat().st_mtime
    assert sweep(table, now_s) == 0
    removed = sweep(table, now_s + LATER_S)
    assert removed > 20
    assert not orphan.exists()
    table.refresh()
    assert on_disk(world.folder) == {location.removeprefix("file://") for location in references(table)}
    for snapshot in table.snapshots():
        table.scan(snapshot_id=snapshot.snapshot_id).to_arrow()
    world.drain(world.start())
    assert len(world.records("telemetry")) == 53 * 20


def test_passes_over_a_backlog_read_each_manifest_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    scattered(world, 0, 9)
    monkeypatch.setattr(keeping, "COMPACTIONS_PER_PASS", 1)
    monkeypatch.setattr(merging, "MERGE_FILES_MAX", 2)
    reads, fetch = Counter[str](), ManifestFile.fetch_manifest_entry

    def counted(manifest: ManifestFile, io: FileIO, discard_deleted: bool = True) -> list[ManifestEntry]:
        reads[manifest.manifest_path] += not discard_deleted  # the sweep, which reads for itself, discards them
        return fetch(manifest, io, discard_deleted)

    monkeypatch.setattr(ManifestFile, "fetch_manifest_entry", counted)
    newest = table_of(world).current_snapshot()
    assert newest is not None
    world.clock.at_ms = newest.timestamp_ms + 100 * QUIET_AFTER_MS  # quiet, whatever the passes commit
    catalog = open_catalog(catalogs(world.folder)[0])
    status = MaintenanceStatus(pid=0)
    keeper = Keeper((catalog,), world.clock, status)
    for _ in range(9):
        keeper.step(threading.Event())
    assert status.compactions == {"lake_a.field.telemetry": 8}
    assert set(reads.values()) - {0} == {1}
    assert len(files(table_of(world))) == 1
    catalog.engine.dispose()


@given(st.lists(st.text(), unique=True, max_size=60))
def test_a_sweep_is_removed_in_shares(paths: list[str]) -> None:
    found = Doomed(paths)
    shares = [found.share() for _ in range(PASSES_PER_SWEEP)]
    assert [path for share in shares for path in share] == paths
    assert found.share() == []
    assert max(map(len, shares)) <= len(paths) // PASSES_PER_SWEEP + 1


def test_a_pass_of_the_process_merges_every_table_of_ours(world: World) -> None:
    scattered(world, 0, 9)
    newest = table_of(world).current_snapshot()
    assert newest is not None
    world.clock.at_ms = newest.timestamp_ms + QUIET_AFTER_MS + 1
    opened = tuple(open_catalog(config) for config in catalogs(world.folder))
    status = MaintenanceStatus(pid=0)
    keeper = Keeper(opened, world.clock, status)
    keeper.step(threading.Event())
    assert status.files_merged == {"lake_a.field.telemetry": 9}
    assert status.last_error == ""
    for catalog in opened:
        catalog.engine.dispose()


def test_passes_remove_what_nothing_refers_to(world: World) -> None:
    scattered(world, 0, 9)
    before = on_disk(world.folder)
    compact(table_of(world), quiet=True)
    catalog = open_catalog(catalogs(world.folder)[0])
    status = MaintenanceStatus(pid=0)
    world.clock.at_ms = (world.folder.stat().st_mtime + LATER_S) * 1_000
    keeper = Keeper((catalog,), world.clock, status)
    keeper.step(threading.Event())
    waiting = status.files_waiting["lake_a.field.telemetry"]
    world.clock.advance(READER_GRACE_S / 2)
    keeper.step(threading.Event())
    assert before <= on_disk(world.folder)  # a reader may have planned on them until just now
    world.clock.advance(READER_GRACE_S / 2)
    keeper.step(threading.Event())
    first = status.files_deleted["lake_a.field.telemetry"]
    for _ in range(PASSES_PER_SWEEP):
        keeper.step(threading.Event())
    gone = before - on_disk(world.folder)
    assert 0 < first < len(gone) == waiting == status.files_deleted["lake_a.field.telemetry"]
    assert remove(table_of(world), gone) == 0
    assert len(world.records("telemetry")) == 9 * 20
    catalog.engine.dispose()


sizes = st.lists(st.integers(1, 2 * TIER_BYTES[-1]), max_size=300)


@given(sizes, st.booleans())
def test_a_merge_has_limits_and_stays_within_one_tier(found: list[int], quiet: bool) -> None:
    chosen = merge([File(str(n), size) for n, size in enumerate(found)], quiet)
    assert len(set(chosen)) == len(chosen) <= MERGE_FILES_MAX
    assert len(chosen) != 1
    assert sum(f.size_bytes for f in chosen) <= MERGE_BYTES_MAX
    assert len({sum(f.size_bytes >= end for end in TIER_BYTES) for f in chosen}) <= 1


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60), st.integers(1, 40))
def test_expiry_keeps_the_newest_the_pinned_and_the_newest_state(flags: list[tuple[bool, bool]], kept_max: int) -> None:
    present = [Kept(n, has_state, pinned) for n, (has_state, pinned) in enumerate(flags)]
    gone = set(expired(present, kept_max))
    kept = [s for s in present if s.snapshot_id not in gone]
    assert kept[-kept_max:] == present[-kept_max:]
    assert [s for s in present if s.pinned] == [s for s in kept if s.pinned]
    newest_state = max((s.snapshot_id for s in present if s.has_state), default=len(present))
    assert kept[-len(present[newest_state:]) :] == present[newest_state:] or newest_state == len(present)
    assert len([s for s in kept if not s.pinned]) <= max(kept_max, len(present) - newest_state)


@given(st.lists(st.sets(st.text(max_size=2)), max_size=12), st.integers(1, 5))
def test_a_file_is_removed_only_after_it_was_not_needed_for_the_grace(sweeps: list[set[str]], grace: int) -> None:
    unneeded = Unneeded()
    for now, found in enumerate(sweeps):
        ripe = unneeded.ripe(sorted(found), float(now), float(grace))
        lately = sweeps[max(0, now - grace) : now + 1]
        assert set(ripe) == {path for path in found if now >= grace and all(path in other for other in lately)}
        assert len(unneeded) == len(found)


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1_000)), st.sets(st.text(max_size=3)))
def test_only_old_unreferenced_files_are_removed(ages_s: dict[str, float], referenced: set[str]) -> None:
    gone = set(unreferenced(ages_s, referenced, 500.0))
    assert gone == {path for path, age in ages_s.items() if age > 500 and path not in referenced}

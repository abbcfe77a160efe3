"""The newest metadata file, told from the files alone, after writers that lost races and writers that died."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.errors import BrokenTableError
from lakehouse.metadata_files import Candidate, candidates_in, newest, version_of
from tests.lakehouse.foreign_tables import ROWS, catalog_in, made_table

LISTED = 8  # older files that a metadata file lists


class Race:
    """Writers over one pointer, as the catalog's compare-and-set lets them."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.pointer = self._file(None)
        self.files = [self.pointer]

    def _file(self, parent: Candidate | None) -> Candidate:
        version = parent.version + 1 if parent else 0
        snapshot = self.rng.getrandbits(48)
        before = sorted(parent.before)[-LISTED + 1 :] if parent else []
        return Candidate(
            location=f"s3://lake/t/metadata/{version:05}-{self.rng.getrandbits(64):016x}.metadata.json",
            version=version,
            table_uuid="t",
            before=frozenset([*before, parent.name] if parent else []),
            snapshots=frozenset([*(parent.snapshots if parent else ()), snapshot]),
            current_snapshot=snapshot,
            sequence_number=version,
        )

    def step(self) -> None:
        """Some writers write on top of the same pointer; at most one moves it, and its rows may be acknowledged."""
        written = [self._file(self.pointer) for _ in range(self.rng.randint(1, 3))]
        self.files += written
        if self.rng.random() < 0.8:
            self.pointer = self.rng.choice(written)


@given(st.integers(0, 2**32), st.integers(0, 20))
def test_the_newest_holds_all_that_was_ever_current_or_a_person_is_asked(seed: int, steps: int) -> None:
    race = Race(Random(seed))
    for _ in range(steps):
        race.step()
    files = race.rng.sample(race.files, len(race.files))
    highest = [one for one in files if one.version == max(f.version for f in files)]
    if len(highest) > 1:
        with pytest.raises(BrokenTableError) as refused:
            newest(files)
        assert all(one.location in str(refused.value) for one in highest)
    else:
        assert race.pointer.snapshots <= newest(files).snapshots
    if race.pointer.version == max(one.version for one in files):
        acknowledged = {race.pointer.current_snapshot or 0}
        assert newest(files, acknowledged) == race.pointer


def test_the_newest_of_a_real_table_is_the_catalogs_own_whatever_lies_beside_it(tmp_path: Path) -> None:
    catalog = catalog_in(tmp_path)
    table = made_table(catalog)
    for _ in range(12):
        table.append(ROWS)
    folder = Path(table.metadata_location.removeprefix("file://")).parent
    (folder / "00003-never-written.metadata.json").write_text("{")
    (folder / "README").write_text("metadata.json")
    found, broken = candidates_in(table.io, table.location())
    assert newest(found).location == table.metadata_location
    assert [path.rpartition("/")[2] for path in broken] == ["00003-never-written.metadata.json"]
    catalog.engine.dispose()


def test_the_files_of_two_tables_are_never_mixed() -> None:
    one, other = Race(Random(1)).pointer, Race(Random(2)).pointer
    with pytest.raises(BrokenTableError, match="those of 2"):
        newest([one, Candidate(**{f: getattr(other, f) for f in other.__struct_fields__} | {"table_uuid": "u"})])


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("00012-9c1e.metadata.json", 12),
        ("v7.metadata.json", 7),
        ("v7.gz.metadata.json", 7),
        ("00012-9c1e.metadata.json.gz", 12),
        ("version-hint.text", None),
        (".v7.metadata.json.crc", None),
        ("9c1e-m0.avro", None),
    ],
)
def test_versions_are_read_from_every_writers_names(name: str, version: int | None) -> None:
    assert version_of(f"s3://lake/t/metadata/{name}") == version

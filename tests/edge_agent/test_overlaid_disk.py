"""A folder under changes in memory reads like one that was changed, and is not."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.adapters.overlaid_disk import OverlaidDisk
from tests.edge_agent.worlds import MemoryDisk

NAMES = ("a", "b", "c")
FOUND = {"a": b"0123456789", "b": b""}

Steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from(NAMES), st.binary(max_size=6)),
        st.tuples(st.just("replace"), st.sampled_from(NAMES), st.binary(max_size=6)),
        st.tuples(st.just("truncate"), st.sampled_from(NAMES), st.integers(0, 12)),
        st.tuples(st.just("delete"), st.sampled_from(NAMES), st.none()),
    ),
    max_size=12,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("spool")
    for name, data in FOUND.items():
        (made / name).write_bytes(data)
    return made


@given(steps=Steps, offset=st.integers(0, 14), length=st.none() | st.integers(0, 14))
def test_it_reads_as_a_disk_that_was_changed(
    folder: Path, steps: list[tuple[str, str, object]], offset: int, length: int | None
) -> None:
    overlaid, changed = OverlaidDisk(folder), MemoryDisk(FOUND)
    for method, name, value in steps:
        if method == "truncate" and name not in changed.names():
            continue
        arguments = (name,) if method == "delete" else (name, value)
        getattr(overlaid, method)(*arguments)
        getattr(changed, method)(*arguments)
    assert overlaid.names() == sorted(changed.names())
    for name in changed.names():
        overlaid.sync(name)
        assert overlaid.size(name) == changed.size(name)
        assert overlaid.read(name) == changed.read(name)
        assert overlaid.read(name, offset, length) == changed.read(name, offset, length)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FOUND


def test_what_is_not_there_cannot_be_read(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        OverlaidDisk(folder).read("gone")


def test_a_tail_that_was_cut_is_counted(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "spool")
    disk = OverlaidDisk(tmp_path / "spool")
    disk.truncate("a", 4)
    assert disk.cut_bytes == 6

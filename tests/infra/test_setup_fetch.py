"""Downloads: nothing unverified or partial is ever taken for complete."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from infra.setup import artifacts, fetch
from infra.setup.artifacts import Artifact
from infra.setup.errors import DigestMismatchError, DownloadError
from infra.setup.fetch import OnBytes

CONTENT = b"a jar" * 1000


def artifact(name: str, content: bytes = CONTENT) -> Artifact:
    return Artifact("org.example", name, "1.0", "", "jar", len(content), hashlib.sha256(content).hexdigest())


class Repository:
    """Serves the same bytes for everything, cut off in the first `cuts` tries of each file."""

    def __init__(self, content: bytes = CONTENT, cuts: int = 0) -> None:
        self.content = content
        self.cuts = cuts
        self.tries: dict[str, int] = {}

    def download(self, wanted: Artifact, folder: Path, on_bytes: OnBytes) -> Path:
        assert not list(folder.iterdir()), "a try must never see what another left"
        tries = self.tries[wanted.artifact] = self.tries.get(wanted.artifact, 0) + 1
        sent = self.content[: len(self.content) // 2] if tries <= self.cuts else self.content
        file = folder / wanted.filename
        file.write_bytes(sent)
        on_bytes(len(sent))
        return file


def ignore(_done: int, _total: int) -> None:
    return


def at_once(_pause_s: float) -> None:
    return


def test_every_artifact_arrives_under_its_name(tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    group = (artifact("a"), artifact("b"))
    fetch.fetch_group(group, tmp_path, Repository().download, lambda done, total: reports.append((done, total)))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a-1.0.jar", "b-1.0.jar"]
    assert reports[-1] == (2 * len(CONTENT), 2 * len(CONTENT))


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    repository = Repository()
    fetch.fetch_group((artifact("a"),), tmp_path, repository.download, ignore)
    fetch.fetch_group((artifact("a"), artifact("b")), tmp_path, repository.download, ignore)
    assert repository.tries == {"a": 1, "b": 1}


def test_a_partial_file_is_fetched_again(tmp_path: Path) -> None:
    wanted = artifact("a")
    (tmp_path / wanted.filename).write_bytes(CONTENT[:100])
    fetch.fetch_group((wanted,), tmp_path, Repository().download, ignore)
    assert (tmp_path / wanted.filename).read_bytes() == CONTENT


def test_a_transfer_cut_short_is_tried_again_and_counted_once(tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    repository = Repository(cuts=fetch.TRIES_PER_FILE - 1)
    fetch.fetch_group(
        (artifact("a"),), tmp_path, repository.download, lambda done, total: reports.append((done, total)), at_once
    )
    assert artifacts.is_complete(artifact("a"), tmp_path)
    assert reports == [(len(CONTENT), len(CONTENT))]


def test_a_transfer_always_cut_short_leaves_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    repository = Repository(cuts=fetch.TRIES_PER_FILE)
    with pytest.raises(
        DownloadError, match=r"a-1\.0\.jar: expected 5000 bytes, found 2500 after 3 tries; check the net"
    ):
        fetch.fetch_group((artifact("a"),), tmp_path, repository.download, ignore, at_once)
    assert list(tmp_path.iterdir()) == []


def test_another_content_is_refused_at_once_and_thrown_away(tmp_path: Path) -> None:
    wanted = artifact("a")
    other = CONTENT[::-1]
    repository = Repository(other)
    with pytest.raises(DigestMismatchError) as caught:
        fetch.fetch_group((wanted,), tmp_path, repository.download, ignore)
    for part in (wanted.filename, wanted.sha256, hashlib.sha256(other).hexdigest(), "Run again"):
        assert part in str(caught.value)
    assert repository.tries == {"a": 1}
    assert list(tmp_path.iterdir()) == []


def test_a_failing_file_does_not_cost_its_neighbours(tmp_path: Path) -> None:
    bad = replace(artifact("bad"), sha256="0" * 64)
    with pytest.raises(DigestMismatchError):
        fetch.fetch_group((bad, artifact("good")), tmp_path, Repository().download, ignore)
    assert [file.name for file in tmp_path.iterdir()] == ["good-1.0.jar"]


def test_the_committed_list_names_every_file_once_with_a_whole_digest() -> None:
    everything = [entry for group in artifacts.load().values() for entry in group]
    assert len({entry.filename for entry in everything}) == len(everything)
    assert all(len(entry.sha256) == 64 and int(entry.sha256, 16) >= 0 and entry.bytes > 0 for entry in everything)

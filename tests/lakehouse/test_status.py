"""What a lakehouse process says of itself."""

from lakehouse.status import COMMITS_SHOWN_MAX, IngestStatus


def test_the_newest_commits_are_named_and_no_reader_sees_a_list_change() -> None:
    status = IngestStatus(pid=1)
    shown: list[list[float]] = []
    for number in range(COMMITS_SHOWN_MAX + 3):
        status.note_commit(float(number))
        shown.append(status.recent_commits_ms)
    assert status.last_commit_ms == status.recent_commits_ms[-1] == COMMITS_SHOWN_MAX + 2
    assert status.recent_commits_ms == [float(number) for number in range(3, COMMITS_SHOWN_MAX + 3)]
    assert shown[0] == [0.0]
    assert IngestStatus(pid=2).recent_commits_ms == []

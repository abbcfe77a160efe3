"""What a lakehouse process says of itself."""

from lakehouse.status import COMMITS_SHOWN_MAX, IngestStatus


def test_the_newest_commits_of_a_table_are_named_and_no_reader_sees_a_list_change() -> None:
    status = IngestStatus(pid=1)
    shown: list[dict[str, list[float]]] = []
    status.note_commit("visits", 0.5)
    for number in range(COMMITS_SHOWN_MAX + 3):
        status.note_commit("clicks", float(number))
        shown.append(status.recent_commits_ms)
    assert status.last_commit_ms == status.recent_commits_ms["clicks"][-1] == COMMITS_SHOWN_MAX + 2
    assert status.recent_commits_ms["clicks"] == [float(number) for number in range(3, COMMITS_SHOWN_MAX + 3)]
    assert status.commits == {"visits": 1, "clicks": COMMITS_SHOWN_MAX + 3}
    assert shown[0] == {"visits": [0.5], "clicks": [0.0]}
    assert IngestStatus(pid=2).recent_commits_ms == {}

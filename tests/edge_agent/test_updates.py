"""When a device looks for bundles, and the process that looks."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import releases
from contracts.releases import Announcement
from edge_agent.adapters.updating_process import RUN_S_MAX, UpdatingProcess
from edge_agent.bundle_updates import LOOK_S, BundleUpdates
from edge_agent.core.updates import updates
from edge_agent.core.updates.updates import (
    POLL_JITTER,
    POLL_S,
    RETRY_FIRST_S,
    RETRY_MAX_S,
    SPREAD_S,
    Verdict,
    Watch,
)
from tests.waiting import eventually

CURRENT = Verdict("current", timestamp_version=7)
FAILED = Verdict("failed", reason="unreachable")


def test_an_announcement_is_followed_within_seconds_and_once() -> None:
    watch = updates.concluded(Watch(0.0), CURRENT, 100.0, 0.5)
    assert watch.due_s == 100.0 + POLL_S
    assert updates.announced(watch, 7, 110.0, 0.5) == watch  # seen already
    heard = updates.announced(watch, 8, 110.0, 0.5)
    assert heard.due_s == 110.0 + SPREAD_S / 2
    assert updates.announced(heard, 8, 111.0, 0.9) == heard
    assert updates.announced(heard, 5, 111.0, 0.9) == heard


def test_failures_are_tried_again_after_longer_and_longer_pauses() -> None:
    watch, pauses = Watch(0.0), []
    for _ in range(40):
        watch = updates.concluded(watch, FAILED, 0.0, 0.5)
        pauses.append(watch.due_s)
    assert pauses[:3] == [RETRY_FIRST_S, 2 * RETRY_FIRST_S, 4 * RETRY_FIRST_S]
    assert pauses[-1] == RETRY_MAX_S
    assert updates.concluded(watch, CURRENT, 0.0, 0.5).failures == 0
    # Something new to find is tried at once again.
    assert updates.announced(watch, 9, 0.0, 0.5).failures == 0


@given(
    st.lists(
        st.one_of(st.integers(1, 20), st.builds(Verdict, st.sampled_from(["current", "staged", "refused", "failed"]))),
        max_size=30,
    ),
    st.floats(0, 1, exclude_max=True),
)
def test_the_next_look_is_never_further_than_a_poll(happened: list[int | Verdict], random: float) -> None:
    watch, now_s = Watch(0.0), 0.0
    for event in happened:
        if isinstance(event, Verdict):
            watch = updates.concluded(watch, event, now_s, random)
        else:
            watch = updates.announced(watch, event, now_s, random)
        assert watch.due_s <= now_s + max(POLL_S, RETRY_MAX_S) * (1 + POLL_JITTER)
        now_s += 1.0


class Played:
    """A process whose verdicts are written beforehand."""

    def __init__(self, *verdicts: Verdict | OSError) -> None:
        self.script, self.started, self.runs = list(verdicts), list[tuple[int, int]](), False

    def start(self, now_s: float, announced: int = 0, known_time_ms: int = 0) -> None:
        self.started.append((announced, known_time_ms))
        if isinstance(self.script[0], OSError):
            raise self.script.pop(0)  # type: ignore[misc]
        self.runs = True

    def take(self, now_s: float) -> Verdict | None:
        self.runs = False
        verdict = self.script.pop(0)
        assert isinstance(verdict, Verdict)
        return verdict

    def close(self) -> None:
        self.runs = False


def test_a_device_looks_at_once_then_when_it_hears_and_logs_what_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    refused = Verdict("refused", release=3, timestamp_version=8, reason="rollback", detail="older: 过期")
    process = Played(OSError(12, "Cannot allocate memory"), CURRENT, refused)
    looking = BundleUpdates(process, lambda: 0.5, 10.0)
    failed = looking.turn(10.0)
    assert failed is not None
    assert (failed.outcome, failed.reason) == ("failed", "process")
    assert looking.turn(10.0 + RETRY_FIRST_S) is None
    assert looking.due_s(15.0) == 15.0 + LOOK_S
    assert looking.turn(16.0) == CURRENT
    assert looking.turn(17.0) is None
    looking.heard(b"{", 18.0)
    assert looking.due_s(18.0) == 16.0 + POLL_S
    looking.heard(releases.encode(Announcement(8)), 18.0)
    assert looking.turn(18.0 + SPREAD_S, known_time_ms=77) is None
    assert looking.turn(21.0) == looking.last == refused
    assert process.started == [(0, 0), (0, 0), (8, 77)]
    assert "bundle_refused release=3 reason=rollback detail='older: 过期'" in caplog.text
    assert "announcement_refused" in caplog.text
    looking.close()


def command(code: str) -> tuple[str, ...]:
    """Return a process that runs this code."""
    return (sys.executable, "-c", code)


@pytest.mark.stack
def test_a_verdict_is_taken_when_the_process_has_ended() -> None:
    process = UpdatingProcess(command('print(\'{"outcome":"staged","release":4}\')'))
    assert process.take(0.0) is None
    process.start(0.0, announced=3, known_time_ms=9)
    process.start(0.0)  # one at a time
    assert process.runs
    assert eventually(lambda: process.take(1.0), "the verdict") == Verdict("staged", release=4)
    assert not process.runs


@pytest.mark.stack
def test_a_process_without_a_verdict_is_a_failure_that_passes() -> None:
    process = UpdatingProcess(command("import sys; sys.exit('no module tuf')"))
    process.start(0.0)
    verdict = eventually(lambda: process.take(1.0), "the verdict")
    assert (verdict.outcome, verdict.reason) == ("failed", "process")
    assert "exit code 1: no module tuf" in verdict.detail


@pytest.mark.stack
def test_a_process_that_hangs_is_ended() -> None:
    process = UpdatingProcess(command("import signal; signal.pause()"))
    process.start(10.0)
    assert process.take(10.0 + RUN_S_MAX - 1) is None
    verdict = process.take(10.0 + RUN_S_MAX)
    assert verdict is not None
    assert "no verdict within 180 s" in verdict.detail
    process.start(20.0)
    process.close()
    assert not process.runs

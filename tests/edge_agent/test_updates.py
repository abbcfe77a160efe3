"""When a device looks for bundles, and the process that looks."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.adapters.updating_process import RUN_S_MAX, UpdatingProcess
from edge_agent.core import updates
from edge_agent.core.updates import POLL_JITTER, POLL_S, RETRY_FIRST_S, RETRY_MAX_S, SPREAD_S, Verdict, Watch
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

"""Steps run side by side, in order, and a failing one takes only those down that wait for it."""

import errno
import io
import re
import threading
from collections.abc import Callable
from functools import partial

from infra.setup import runner
from infra.setup.errors import SetupError
from infra.setup.plan import Step
from infra.setup.runner import Board

WAIT_S = 10.0


def nothing(_report: Callable[[str], None]) -> None:
    return


def run(steps: tuple[Step, ...], actions: dict[str, Callable[[Callable[[str], None]], None]]) -> tuple[list[str], str]:
    out = io.StringIO()
    failed = runner.run(steps, {step.name: actions.get(step.name, nothing) for step in steps}, Board(out), lambda: None)
    return list(failed), out.getvalue()


def test_independent_steps_run_at_the_same_time() -> None:
    both = threading.Barrier(2)

    def meet(_report: Callable[[str], None]) -> None:
        both.wait(WAIT_S)

    failed, out = run((Step("a", ""), Step("b", "")), {"a": meet, "b": meet})
    assert failed == []
    assert re.search(r"^\[ +\d+\.\d s\] a: done \(\d+\.\d s\)$", out, re.MULTILINE)


def test_a_step_begins_after_those_it_waits_for() -> None:
    order: list[str] = []

    def note(name: str, _report: Callable[[str], None]) -> None:
        order.append(name)

    steps = (Step("a", ""), Step("b", "", after=("a",)), Step("c", "", after=("b",)))
    run(steps, {name: partial(note, name) for name in "abc"})
    assert order == ["a", "b", "c"]


def test_what_is_not_planned_is_not_waited_for() -> None:
    failed, out = run((Step("b", "", after=("a",)),), {})
    assert failed == []
    assert "b: done" in out


def test_a_failing_step_names_itself_and_the_others_finish() -> None:
    def fail(_report: Callable[[str], None]) -> None:
        raise SetupError("expected x, found y: do z")

    failed, out = run((Step("a", ""), Step("b", "", after=("a",)), Step("c", "")), {"a": fail})
    assert failed == ["a", "b"]
    assert "a: FAILED: expected x, found y: do z" in out
    assert "b: not begun, it needs a" in out
    assert "c: done" in out


def test_a_full_disk_is_one_clear_line() -> None:
    def fill(_report: Callable[[str], None]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/cache/x.jar")

    failed, out = run((Step("a", ""),), {"a": fill})
    assert failed == ["a"]
    assert "a: FAILED: the disk is full while writing /cache/x.jar: make room and run again" in out

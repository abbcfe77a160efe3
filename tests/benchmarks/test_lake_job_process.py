"""A job that fails says why, however it is waited for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import Struct

from benchmarks.lake.job_process import JobProcess
from benchmarks.lake.send import Sent
from contracts.errors import OperatorMustActError
from infra.launcher.settings import StackSettings


class NoJob(Struct, frozen=True):
    """Not what a sender expects."""

    number: int = 1


@pytest.fixture
def failing(tmp_path: Path) -> JobProcess:
    ground: Any = SimpleNamespace(folder=tmp_path, settings=StackSettings(tmp_path / "state", 30_000))
    return JobProcess(ground, "benchmarks.lake.send", "x", NoJob())


def test_who_waits_for_the_end_hears_why(failing: JobProcess) -> None:
    with pytest.raises(OperatorMustActError, match=r"send x: ended with exit code 1: (.|\n)*missing required field"):
        failing.done(Sent)
    failing.kill()
    assert failing.is_over


def test_who_waits_for_the_first_line_hears_why(failing: JobProcess) -> None:
    with pytest.raises(OperatorMustActError, match=r"send x: ended with exit code 1: (.|\n)*missing required field"):
        failing.first_number()
    failing.kill()

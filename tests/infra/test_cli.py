"""The command line: every command shows an example, a wrong argument gets one line, importing it is light."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from infra.cli.main import build, run
from infra.setup.paths import repo_root

HEAVY = ("pyarrow", "pyiceberg", "confluent_kafka", "trino", "rich", "numpy", "cryptography", "psycopg")


def commands() -> list[tuple[str, ...]]:
    """Return the words of every command."""

    def below(group: TyperGroup, words: tuple[str, ...]) -> list[tuple[str, ...]]:
        found = []
        for name, command in group.commands.items():
            found += below(command, (*words, name)) if isinstance(command, TyperGroup) else [(*words, name)]
        return found

    root = get_command(build())
    assert isinstance(root, TyperGroup)
    return below(root, ())


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_ends_with_an_example(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words, "--help"]) == 0
    assert f"Example: fieldlake {' '.join(words)}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["upp"], "expected one of"),
        (["up", "--port-base", "x"], "'--port-base'"),
        (["up", "--no-such"], "No such option"),
        (["restart"], "Missing argument"),
        (["status", "extra"], "extra"),
    ],
)
def test_a_wrong_argument_gets_one_line(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("fieldlake: ")
    assert expected in said.err
    assert "--help" in said.err


def test_an_unknown_part_gets_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["restart", "toaster", "--state-dir", str(tmp_path)]) == 1
    assert "part 'toaster': expected one of" in capsys.readouterr().err


def test_status_of_a_stack_that_never_ran_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--json", "--state-dir", str(tmp_path / "state")]) == 0
    assert '"running": false' in capsys.readouterr().out
    assert not (tmp_path / "state").exists()


def test_a_stack_that_does_not_run_cannot_be_restarted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["restart", "kafka", "--state-dir", str(tmp_path / "state")]) == 1
    assert "run `fieldlake up`" in capsys.readouterr().err
    assert run(["down", "--state-dir", str(tmp_path / "state")]) == 0
    assert not (tmp_path / "state").exists()


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    code = f"import sys, infra.cli; sys.exit(', '.join(m for m in {HEAVY!r} if m in sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root(), capture_output=True, text=True, check=False, timeout=60
    )
    assert result.stderr.strip() == ""


def test_typer_still_raises_its_own_exceptions() -> None:
    assert issubclass(typer.BadParameter, typer.TyperException)

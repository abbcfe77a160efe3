"""House rules that no linter has: what a package exports, where printing is allowed, how long a module may be."""

import ast
import importlib
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "benchmarks", "contracts", "edge_agent", "federation", "flink_jobs", "gateway", "infra", "lakehouse", "onnx_models",
)  # fmt: skip
PRINTING = ("infra/cli/", "infra/demo/", "infra/setup/", "benchmarks/")  # programs whose output is for a terminal
ENTRY = "__main__.py"  # may say in one line why it does not start
LINES_MAX = 500
BROAD = {"Exception", "BaseException"}

FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
EXPORTING = [file for file in FILES if file.name == "__init__.py" and "__all__" in file.read_text()]
REASONED = re.compile(r"# noqa: BLE001 - \w+")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def short(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def broad_and_swallowed(source: str) -> list[int]:
    """Return the lines of handlers that catch everything, do not raise again, and do not say why."""
    lines = source.splitlines()
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or bool(BROAD & {part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)}))
        and not any(isinstance(part, ast.Raise) for part in ast.walk(node))
        and not REASONED.search(lines[node.lineno - 1])
    ]


def prints(tree: ast.Module) -> list[int]:
    """Return the lines that call `print`."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def unfinished(source: str) -> list[int]:
    """Return the lines whose comment says that work is missing."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [token.start[0] for token in tokens if token.type == tokenize.COMMENT and UNFINISHED.search(token.string)]


@pytest.mark.parametrize("file", EXPORTING, ids=short)
def test_exported_names_are_sorted_and_all_that_is_public(file: Path) -> None:
    module = importlib.import_module(".".join(file.parent.relative_to(ROOT).parts))
    exported: list[str] = module.__all__
    assert exported == sorted(exported)
    own = module.__name__.partition(".")[0]
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and str(getattr(value, "__module__", "")).partition(".")[0] == own
    }
    assert public <= set(exported), f"public and not exported: {sorted(public - set(exported))}"
    assert not [name for name in exported if not hasattr(module, name)]


def test_only_programs_for_a_terminal_print() -> None:
    found = [
        f"{short(file)}:{line}"
        for file in FILES
        if not short(file).startswith(PRINTING) and file.name != ENTRY
        for line in prints(ast.parse(file.read_text()))
    ]
    assert found == []


def test_no_module_is_too_long_to_be_read_at_once() -> None:
    lengths = {short(file): len(file.read_text().splitlines()) for file in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > LINES_MAX} == {}


def test_nobody_swallows_errors_he_cannot_name() -> None:
    found = [f"{short(file)}:{line}" for file in FILES for line in broad_and_swallowed(file.read_text())]
    assert found == []


def test_nothing_is_marked_as_unfinished() -> None:
    found = [f"{short(file)}:{line}" for file in FILES for line in unfinished(file.read_text())]
    assert found == []


def test_the_checks_find_what_they_are_for() -> None:
    swallowing = (
        "try:\n    f()\nexcept (ValueError, Exception):\n    pass\ntry:\n    f()\nexcept Exception:\n    raise\n"
    )
    assert broad_and_swallowed(swallowing) == [3]
    assert prints(ast.parse("x = 1\nprint(x)\n")) == [2]
    assert unfinished("x = 1\n# TODO\ny = 'TODO'\n") == [2]

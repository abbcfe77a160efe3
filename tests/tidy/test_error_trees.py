"""The tree drawn on top of an `errors.py` is the tree that the module defines."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("contracts", "edge_agent", "gateway", "flink_jobs", "lakehouse", "federation", "onnx_models", "infra")
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for package in PACKAGES
    for file in (ROOT / package).rglob("errors.py")
)

BRANCH_CHARACTERS = 4  # width of one level of the drawing: `├── ` or `│   `
_DRAWN = re.compile(r"^(?P<branch>[│├└─ ]*)(?P<name>\w+Error)\b", re.MULTILINE)


def drawn_parents(text: str) -> dict[str, str | None]:
    """Return the parent of every error drawn in a docstring, None for a root."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in _DRAWN.finditer(text):
        path[len(line["branch"]) // BRANCH_CHARACTERS :] = [line["name"]]
        parents[line["name"]] = path[-2] if len(path) > 1 else None
    return parents


def defined_errors(module: ModuleType) -> dict[str, type[Exception]]:
    """Return the errors that a module itself defines."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == module.__name__
    }


@pytest.mark.parametrize("name", MODULES)
def test_every_error_is_drawn_below_its_base(name: str) -> None:
    module = importlib.import_module(name)
    parents, defined = drawn_parents(module.__doc__ or ""), defined_errors(module)
    known = {base.__name__: base for error in defined.values() for base in error.__mro__}
    assert defined.keys() <= parents.keys(), f"not drawn: {sorted(defined.keys() - parents.keys())}"
    assert parents.keys() <= known.keys(), f"drawn and not defined: {sorted(parents.keys() - known.keys())}"
    for error, parent in parents.items():
        if parent is not None:
            bases = {base.__name__ for base in known[error].__bases__}
            assert parent in bases, f"{error} is drawn below {parent} and derives from {sorted(bases)}"


def test_the_drawing_is_read_level_by_level() -> None:
    text = "Errors.\n\nAError   root\n├── BError\n│   └── CError   leaf\n└── DError\n\nThe text names EError too."
    assert drawn_parents(text) == {"AError": None, "BError": "AError", "CError": "BError", "DError": "AError"}

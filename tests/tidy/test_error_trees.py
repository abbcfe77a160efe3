"""The tree drawn on top of an `errors.py` is the tree that the module defines."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("contracts", "edge_agent", "gateway", "flink_jobs", "lakehouse", "federation", "onnx_models", "infra")
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for package in PACKAGES
    for file in (ROOT / package).rglob("errors.py")
)


@pytest.mark.parametrize("name", MODULES)
def test_every_error_of_the_module_is_drawn(name: str) -> None:
    module = importlib.import_module(name)
    drawn = set(re.findall(r"^[│├└─ ]*(\w+Error)\b", module.__doc__ or "", re.MULTILINE))
    defined = {
        key
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == name
    }
    assert defined <= drawn, f"not drawn: {sorted(defined - drawn)}"
    unknown = drawn - {key for key, value in vars(module).items() if isinstance(value, type)}
    assert unknown <= _inherited(module), f"drawn and not defined: {sorted(unknown)}"


def _inherited(module: object) -> set[str]:
    classes = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Exception)]
    return {base.__name__ for value in classes for base in value.__mro__}

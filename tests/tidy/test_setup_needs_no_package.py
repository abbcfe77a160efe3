"""Set-up runs before any environment exists, so it may import nothing but the standard library and itself."""

import ast
import sys
from pathlib import Path

import pytest

from infra.setup import paths

MODULES = sorted((paths.repo_root() / "infra" / "setup").glob("*.py"))


@pytest.mark.parametrize("module", [paths.repo_root() / "infra" / "__init__.py", *MODULES], ids=lambda file: file.stem)
def test_top_level_imports_are_the_standard_library_or_set_up_itself(module: Path) -> None:
    for node in ast.parse(module.read_text()).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] in sys.stdlib_module_names or name.startswith("infra.setup"), name

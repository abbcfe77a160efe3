"""Fixtures of the lakehouse tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lakehouse.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Log in memory, catalogs on SQLite, the usual contracts published."""
    made = World(tmp_path)
    yield made
    made.close()

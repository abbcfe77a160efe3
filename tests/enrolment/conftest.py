"""A broker and an enrolment service once per module."""

from collections.abc import Iterator

import pytest

from tests.enrolment.plant import Plant


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """Both, running."""
    plant = Plant(tmp_path_factory.mktemp("enrolment"))
    try:
        plant.start()
        yield plant
    finally:
        plant.close()

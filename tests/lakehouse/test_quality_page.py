"""The page on data quality says what the code does."""

import re
from pathlib import Path

from lakehouse.quality.analyst import _OURS, parse
from lakehouse.quality.expectations import Kind
from tests.lakehouse.frames import CONTRACTS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "quality.md").read_text(encoding="utf-8")


def test_the_file_on_the_page_can_be_followed() -> None:
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    contract, expected = parse(shown, CONTRACTS)
    assert (contract, len(expected)) == ("clicks", 2)


def test_the_page_names_every_type_that_a_file_may_use() -> None:
    named = set(re.findall(r"`(expect_\w+)`", PAGE))
    assert named == {kind.value for kind in Kind if kind not in _OURS}

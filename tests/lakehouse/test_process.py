"""What the processes say when their configuration cannot be followed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lakehouse import __main__ as ingest
from lakehouse.errors import ConfigError
from lakehouse.maintenance import __main__ as maintenance
from lakehouse.process import EXIT_OPERATOR_MUST_ACT, read_config
from lakehouse.quality import __main__ as quality
from lakehouse.quality.config import read_config as read_quality_config

BROKEN = {"absent": None, "not JSON": "{", "unknown key": json.dumps({"kafka": 1}), "wrong type": '{"catalogs": 3}'}


@pytest.mark.parametrize("read", [read_config, read_quality_config], ids=["lake", "quality"])
@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_configuration_that_cannot_be_followed_is_one_line(
    tmp_path: Path, text: str | None, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as found:
        read(path)
    assert str(path) in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("program", [ingest, maintenance, quality], ids=["ingest", "maintenance", "quality"])
def test_the_exit_code_says_that_a_person_must_act(program: object, tmp_path: Path) -> None:
    main = program.main  # type: ignore[attr-defined]
    assert main(["--config", str(tmp_path / "absent.json")]) == EXIT_OPERATOR_MUST_ACT
    with pytest.raises(SystemExit) as found:
        main(["--help"])
    assert found.value.code == 0

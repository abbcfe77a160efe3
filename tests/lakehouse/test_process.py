"""What the processes say when their configuration cannot be followed."""

import json
from pathlib import Path

import pytest

from lakehouse import __main__ as ingest
from lakehouse.config import LakeConfig
from lakehouse.errors import ConfigError
from lakehouse.maintenance import __main__ as maintenance
from lakehouse.mirror import __main__ as mirror
from lakehouse.mirror.config import MirrorConfig
from lakehouse.process import EXIT_OPERATOR_MUST_ACT, read_config
from lakehouse.quality import __main__ as quality
from lakehouse.quality.config import QualityConfig

BROKEN = {"absent": None, "not JSON": "{", "unknown key": json.dumps({"kafka": 1}), "wrong type": '{"catalogs": 3}'}


@pytest.mark.parametrize("kind", [LakeConfig, QualityConfig, MirrorConfig])
@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_configuration_that_cannot_be_followed_is_one_line(
    tmp_path: Path, text: str | None, kind: type[LakeConfig | QualityConfig | MirrorConfig]
) -> None:
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as found:
        read_config(path, kind)
    assert str(path) in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "program", [ingest, maintenance, quality, mirror], ids=["ingest", "maintenance", "quality", "mirror"]
)
def test_the_exit_code_says_that_a_person_must_act(program: object, tmp_path: Path) -> None:
    main = program.main  # type: ignore[attr-defined]
    assert main(["--config", str(tmp_path / "absent.json")]) == EXIT_OPERATOR_MUST_ACT
    with pytest.raises(SystemExit) as found:
        main(["--help"])
    assert found.value.code == 0

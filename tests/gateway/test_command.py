"""The command line: one clear line for whoever starts the gateway wrongly."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from infra.setup.paths import repo_root

CONFIG = {
    "kafka_bootstrap": "127.0.0.1:9",
    "mqtt": {"host": "127.0.0.1", "port": 9, "ca_file": "none.pem", "cert_file": "none.pem", "key_file": "none.key"},
}


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "gateway", *arguments],
        cwd=repo_root(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "name an existing file"),
        ("{", "expected a gateway configuration in JSON"),
        (json.dumps({**CONFIG, "shards": 1}), "shards"),
        (json.dumps(CONFIG), "none.pem does not exist"),
    ],
    ids=["missing", "no JSON", "unknown key", "no certificate"],
)
def test_a_bad_configuration_is_one_line_that_says_what_to_do(tmp_path: Path, text: str | None, expected: str) -> None:
    file = tmp_path / "gateway.json"
    if text is not None:
        file.write_text(text)
    result = start("--config", str(file))
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert str(file) in result.stderr
    assert expected in result.stderr


def test_help_shows_an_example() -> None:
    result = start("--help")
    assert result.returncode == 0
    assert "example: python -m gateway --config" in result.stdout

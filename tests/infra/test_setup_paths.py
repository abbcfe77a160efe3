"""Where things lie."""

from pathlib import Path

import pytest

from infra.setup import paths


def test_the_cache_follows_the_base_directory_specification(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert paths.cache_dir() == tmp_path / "elsewhere" / "fieldlake"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert paths.cache_dir() == tmp_path / ".cache" / "fieldlake"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert paths.cache_dir() == tmp_path / ".cache" / "fieldlake"


@pytest.mark.parametrize(
    "there",
    [
        paths.kafka_libs_dir() / f"kafka_2.13-{paths.KAFKA_VERSION}.jar",
        paths.trino_home() / "bin" / "launcher",
        paths.trino_home() / "plugin" / "postgresql",
        paths.s3proxy_jar(),
        paths.flink_home() / "lib" / f"flink-python-{paths.FLINK_VERSION}.jar",
        paths.flink_home() / "lib" / paths.flink_kafka_connector_jar().name,
        paths.java_25_home() / "bin" / "java",
        paths.java_17_home() / "bin" / "java",
        paths.lake_env() / "bin" / "fieldlake",
        paths.edge_python(),
        paths.mosquitto_binary(),
        paths.shuttle_csv_gz(),
        paths.cdnow_purchases_txt(),
        paths.shop_clicks_csv_gz(),
    ],
    ids=lambda path: path.name,
)
def test_after_set_up_everything_is_where_the_paths_say(there: Path) -> None:
    assert there.exists()

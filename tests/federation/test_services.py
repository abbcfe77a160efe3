"""The two processes at their edges: what they refuse to start with, and how the warmer waits."""

import threading
from pathlib import Path

import certifi
import msgspec
import pytest

from federation import warmup
from federation.__main__ import main as history_main
from federation.config import (
    TOKEN_CHARS_MIN,
    CatalogConfig,
    FederationConfig,
    TrinoConfig,
    read_config,
    read_token,
)
from federation.errors import ServiceConfigError
from federation.warmup import Warmer, WarmupStatus

WITHIN_S = 20.0


def config(folder: Path) -> FederationConfig:
    """Return a configuration whose engine does not run: nothing listens on port 1."""
    authority = certifi.where()
    return FederationConfig(
        catalog=CatalogConfig("lake_a", f"sqlite:///{folder}/none.db", "file:///none", "", "", ""),
        trino=TrinoConfig("127.0.0.1", 1, authority, "platform", "none"),
        host="127.0.0.1",
        port=0,
        tls_cert_file="none.pem",
        tls_key_file="none.key",
        token_file=str(folder / "token"),
    )


@pytest.mark.parametrize("main", [history_main, warmup.main])
def test_without_a_configuration_there_is_one_clear_line(
    main: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(main)
    assert main(["--config", str(tmp_path / "missing.json")]) == 2
    assert "missing.json: No such file or directory: name an existing file" in caplog.text


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    document = msgspec.to_builtins(config(tmp_path)) | {"prot": 1}
    path.write_bytes(msgspec.json.encode(document))
    with pytest.raises(ServiceConfigError, match="prot"):
        read_config(path)


def test_a_configuration_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(msgspec.json.encode(config(tmp_path)))
    assert read_config(path) == config(tmp_path)


@pytest.mark.parametrize("text", ["", " \n", "x" * (TOKEN_CHARS_MIN - 1)])
def test_a_token_that_can_be_guessed_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(ServiceConfigError, match=f"at least {TOKEN_CHARS_MIN} characters"):
        read_token(config(tmp_path))


def test_the_warmer_waits_for_an_engine_that_is_not_there_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    status_file, ready_file = tmp_path / "c.status.json", tmp_path / "c.ready"
    ready_file.write_text("left behind by a process that was killed")
    warmer, stop, pause = Warmer(config(tmp_path), status_file, ready_file), threading.Event(), threading.Event()
    thread = threading.Thread(target=warmer.run, args=(stop,))
    thread.start()
    try:
        for _ in range(int(WITHIN_S / 0.05)):
            if status_file.exists() and warmer.status().waiting_for is not None:
                break
            pause.wait(0.05)
        pause.wait(2 * warmup.WAIT_S)  # long enough for a second try
    finally:
        stop.set()
        thread.join(WITHIN_S)
    status = msgspec.json.decode(status_file.read_bytes(), type=WarmupStatus)
    assert status.waiting_for is not None
    assert "may be starting" in status.waiting_for
    assert (status.queries, status.ready, ready_file.exists()) == (0, False, False)
    assert caplog.text.count("warm-up: waiting") == 1

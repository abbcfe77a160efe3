"""Both ciphers are the same AES-256-GCM, and open nothing that was changed."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.adapters.cipher import (
    KEY_BYTES,
    NONCE_BYTES,
    OVERHEAD_BYTES,
    LibraryCipher,
    LinkedCipher,
    open_cipher,
    shared_libcrypto,
)
from edge_agent.errors import ConfigError
from edge_agent.ports import Cipher

KEY = bytes(range(KEY_BYTES))


def linked(key: bytes = KEY) -> Cipher:
    library = shared_libcrypto()
    if library is None:
        pytest.skip("this interpreter has OpenSSL built in")
    return LinkedCipher(key, library)


@pytest.fixture(params=[linked, lambda: LibraryCipher(KEY)], ids=["linked", "library"])
def cipher(request: pytest.FixtureRequest) -> Cipher:
    make: Callable[[], Cipher] = request.param
    return make()


@given(data=st.binary(max_size=5_000), label=st.binary(max_size=64))
def test_each_opens_what_another_implementation_sealed_and_back(data: bytes, label: bytes) -> None:
    judge = AESGCM(KEY)
    for one in (linked(), LibraryCipher(KEY)):
        sealed = one.seal(data, label)
        assert len(sealed) == len(data) + OVERHEAD_BYTES == len(data) + one.overhead_bytes
        assert judge.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], label) == data
        nonce = bytes(NONCE_BYTES)
        assert one.open(nonce + judge.encrypt(nonce, data, label), label) == data


def test_a_changed_byte_another_label_or_key_opens_nothing(cipher: Cipher) -> None:
    sealed = cipher.seal("客户 7".encode(), b"1/2/3")
    for at in range(len(sealed)):
        assert cipher.open(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], b"1/2/3") is None
    for length in range(len(sealed)):
        assert cipher.open(sealed[:length], b"1/2/3") is None
    assert cipher.open(sealed, b"1/2/4") is None
    assert LibraryCipher(bytes(KEY_BYTES)).open(sealed, b"1/2/3") is None
    assert cipher.open(sealed, b"1/2/3") == "客户 7".encode()  # a refusal before does no harm


def test_equal_data_are_sealed_differently_each_time(cipher: Cipher) -> None:
    assert len({cipher.seal(b"same", b"") for _ in range(50)}) == 50


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "spool.key"
    sealed = open_cipher(path).seal(b"data", b"")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert open_cipher(path).open(sealed, b"") == b"data"
    path.write_bytes(b"short")
    with pytest.raises(ConfigError, match="expected 32 bytes, found 5"):
        open_cipher(path)

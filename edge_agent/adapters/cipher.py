"""AES-256-GCM from the OpenSSL that Python's `ssl` has in memory already.

The usual library brings an OpenSSL of its own: 10 MB of a device's memory for one function. So those of OpenSSL's
EVP interface (manual page EVP_EncryptInit, section "AEAD INTERFACE") are called directly where `ssl` is linked with a
shared libcrypto; elsewhere, as in builds that link it statically, the library does it.
"""

import ctypes
import os
import ssl
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

from edge_agent.errors import ConfigError, SpoolError
from edge_agent.ports import Cipher

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
ROOM_BYTES: Final = 32_768  # bytes; most blocks are smaller: one flush of a device of 1,000 events/s is 5 KB
OVERHEAD_BYTES: Final = NONCE_BYTES + TAG_BYTES

_GET_TAG: Final = 0x10  # EVP_CTRL_AEAD_GET_TAG
_SET_TAG: Final = 0x11  # EVP_CTRL_AEAD_SET_TAG


def open_cipher(key_file: Path) -> Cipher:
    """Return a cipher with the key in a file, which is made if it is not there. Raises ConfigError, SpoolError."""
    return cipher_of(open_key(key_file))


def open_key(key_file: Path) -> bytes:
    """Return the key in a file, which is made if it is not there. Raises ConfigError, SpoolError."""
    try:
        key = key_file.read_bytes() if key_file.exists() else _made(key_file)
    except OSError as error:
        raise SpoolError(f"key {key_file}: expected a readable file: {error.strerror}") from error
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"key {key_file}: expected {KEY_BYTES} bytes, found {len(key)}: put back the one the spool was written with"
        )
    return key


def cipher_of(key: bytes) -> Cipher:
    """Return a cipher with a key."""
    library = shared_libcrypto()
    return LinkedCipher(key, library) if library is not None else LibraryCipher(key)


@cache
def shared_libcrypto() -> ctypes.CDLL | None:
    """Return the libcrypto that `ssl` uses, None when it is part of the interpreter."""
    assert ssl.OPENSSL_VERSION  # importing it is what has mapped the library
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    paths = {line.split(maxsplit=5)[5] for line in maps.splitlines() if "/libcrypto" in line}
    library = ctypes.CDLL(min(paths)) if paths else None
    return library if library is not None and hasattr(library, "EVP_aes_256_gcm") else None


class LinkedCipher:
    """Implements `ports.Cipher` with functions of a shared libcrypto. Not for several threads."""

    overhead_bytes = OVERHEAD_BYTES

    def __init__(self, key: bytes, library: ctypes.CDLL, random: Callable[[int], bytes] = os.urandom) -> None:
        self._key = key
        self._random = random
        self._evp = library
        for name in ("EVP_CIPHER_CTX_new", "EVP_aes_256_gcm"):
            getattr(library, name).restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(library.EVP_CIPHER_CTX_new())
        self._algorithm = ctypes.c_void_p(library.EVP_aes_256_gcm())
        self._room = ctypes.create_string_buffer(ROOM_BYTES)
        library.EVP_CIPHER_CTX_free.argtypes = [ctypes.c_void_p]
        library.EVP_CIPHER_CTX_free.restype = None

    def __del__(self) -> None:
        # OpenSSL wipes what it has of the key.
        self._evp.EVP_CIPHER_CTX_free(self._context)

    def seal(self, data: bytes, label: bytes) -> bytes:
        nonce = self._random(NONCE_BYTES)
        out, done, tag = self._room_for(len(data)), ctypes.c_int(0), ctypes.create_string_buffer(TAG_BYTES)
        self._call("EVP_EncryptInit_ex", self._algorithm, None, self._key, nonce)
        self._call("EVP_EncryptUpdate", None, ctypes.byref(done), label, len(label))
        self._call("EVP_EncryptUpdate", out, ctypes.byref(done), data, len(data))
        self._call("EVP_EncryptFinal_ex", None, ctypes.byref(done))
        self._call("EVP_CIPHER_CTX_ctrl", _GET_TAG, TAG_BYTES, tag)
        return b"".join((nonce, ctypes.string_at(out, len(data)), tag.raw))

    def open(self, sealed: bytes, label: bytes) -> bytes | None:
        if len(sealed) < OVERHEAD_BYTES:
            return None
        data, tag = sealed[NONCE_BYTES:-TAG_BYTES], sealed[-TAG_BYTES:]
        out, done = self._room_for(len(data)), ctypes.c_int(0)
        self._call("EVP_DecryptInit_ex", self._algorithm, None, self._key, sealed[:NONCE_BYTES])
        self._call("EVP_DecryptUpdate", None, ctypes.byref(done), label, len(label))
        self._call("EVP_DecryptUpdate", out, ctypes.byref(done), data, len(data))
        self._call("EVP_CIPHER_CTX_ctrl", _SET_TAG, TAG_BYTES, tag)
        whole = self._evp.EVP_DecryptFinal_ex(self._context, None, ctypes.byref(done))
        opened = ctypes.string_at(out, len(data)) if whole == 1 else None
        ctypes.memset(out, 0, len(data))  # what was opened stays with the caller alone
        return opened

    def _room_for(self, size_bytes: int) -> "ctypes.Array[ctypes.c_char]":
        """Return a buffer of at least a size; a new one costs ten times as much as what is done with it."""
        return self._room if size_bytes <= ROOM_BYTES else ctypes.create_string_buffer(size_bytes)

    def _call(self, name: str, *arguments: Any) -> None:
        if getattr(self._evp, name)(self._context, *arguments) != 1:
            raise SpoolError(f"OpenSSL refused {name}: check the installation of libcrypto")


class LibraryCipher:
    """Implements `ports.Cipher` with the package `cryptography`."""

    overhead_bytes = OVERHEAD_BYTES

    def __init__(self, key: bytes, random: Callable[[int], bytes] = os.urandom) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._random = random
        self._aead = AESGCM(key)
        self._invalid = InvalidTag

    def seal(self, data: bytes, label: bytes) -> bytes:
        nonce = self._random(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, data, label)

    def open(self, sealed: bytes, label: bytes) -> bytes | None:
        if len(sealed) < OVERHEAD_BYTES:
            return None
        try:
            return self._aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], label)
        except self._invalid:
            return None


def _made(path: Path) -> bytes:
    """Make a key that nobody else may read; it is whole on disk before anything is sealed with it."""
    key = os.urandom(KEY_BYTES)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, key)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    return key

"""Names under a key of the device: what stands for a person, or for a producer, wherever something is written down.

HMAC-SHA-256 (RFC 2104) under a key that is itself an HMAC of the device's key, so that neither tells the other. It is a
pseudonym and not anonymous: who has the device's key and guesses a name can see whether it is that one.
"""

import hmac
from typing import Final

CHARS: Final = 32  # hexadecimal digits, 128 bits: two persons of one device share them with a probability below 1e-30
_PURPOSE: Final = b"fieldlake consent 1"


class Pseudonyms:
    """Of one device. `key` is its own, of any length."""

    def __init__(self, key: bytes) -> None:
        self._key = hmac.digest(key, _PURPOSE, "sha256")

    def person(self, name: str) -> str:
        """Return what stands for a person; names are compared as they are, character by character."""
        return self._of(b"person", name)

    def producer(self, name: str) -> str:
        """Return what stands for a producer: apps may call themselves by a person's name."""
        return self._of(b"producer", name)

    def checksum(self, data: bytes) -> str:
        """Return what only the owner of the key can say of data."""
        return hmac.digest(self._key, b"checksum\0" + data, "sha256").hex()

    def _of(self, kind: bytes, name: str) -> str:
        return hmac.digest(self._key, kind + b"\0" + name.encode("utf-8", "surrogatepass"), "sha256").hex()[:CHARS]

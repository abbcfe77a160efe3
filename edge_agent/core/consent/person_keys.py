"""One key for the rows of each person, beside the device's: whoever destroys it has destroyed the rows.

A key lies in a file of its own, sealed with the device's key; its number is random and says nothing of the person. The
rows are sealed with it first, and the block that holds them with the device's key. So a refusal costs one small file,
however much the spool holds, and what cannot be opened any more is freed as if it could.
"""

from collections.abc import Callable, Iterable
from typing import Final

from edge_agent.ports import Cipher, Disk

KEY_BYTES: Final = 32  # bytes; AES-256
NUMBER_BYTES: Final = 7  # bytes of a key's number, so that it fits a signed 64-bit integer
PREFIX: Final = "person-"
SUFFIX: Final = ".key"
TEMPORARY: Final = ".tmp"


class PersonKeys:
    """The keys that are there. `withdrawn` are numbers of those that were destroyed on request.

    `cipher` is the device's own, `cipher_of` makes one of a key. Methods that touch the disk raise OSError.
    """

    def __init__(
        self, disk: Disk, cipher: Cipher, cipher_of: Callable[[bytes], Cipher], random: Callable[[int], bytes]
    ) -> None:
        self.overhead_bytes = cipher.overhead_bytes
        self.withdrawn: frozenset[int] = frozenset()
        self._disk = disk
        self._cipher = cipher
        self._cipher_of = cipher_of
        self._random = random
        self._keys: dict[int, bytes] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._keys

    def load(self, wanted: Iterable[int]) -> frozenset[int]:
        """Read keys, destroy all others that are found; return the numbers of those that are missing or have rotted."""
        names = self._disk.names()
        files = {file_of(number): number for number in wanted}
        for name in names:
            # What a crash left of a key that never came into use, or was about to be destroyed.
            if name.startswith(PREFIX) and name not in files:
                self._disk.shred(name)
        for name, number in files.items():
            key = self._cipher.open(self._disk.read(name), _label(number)) if name in names else None
            if key is not None and len(key) == KEY_BYTES:
                self._keys[number] = key
        return frozenset(files.values()) - self._keys.keys()

    def make(self) -> int:
        """Make a key that is durable, and return its number."""
        number = 1 + int.from_bytes(self._random(NUMBER_BYTES), "big")
        key = self._random(KEY_BYTES)
        self._disk.replace(file_of(number), self._cipher.seal(key, _label(number)))
        self._keys[number] = key
        return number

    def destroy(self, number: int) -> None:
        """Forget a key, and overwrite and delete its file; one that is not there is fine."""
        self._keys.pop(number, None)
        self._disk.shred(file_of(number))

    def seal(self, number: int, data: bytes, label: bytes) -> bytes:
        """Return data that opens with this key under this label only. Raises KeyError when the key is not there."""
        return self._cipher_of(self._keys[number]).seal(data, label)

    def opened(self, number: int, data: bytes, label: bytes) -> bytes | None:
        """Return what was sealed; None when the key is gone or the data have rotted."""
        key = self._keys.get(number)
        return self._cipher_of(key).open(data, label) if key is not None else None


def file_of(number: int) -> str:
    """Return the name of a key's file."""
    return f"{PREFIX}{number:016x}{SUFFIX}"


def label_of(contract: str, first_seq: int, kind: str) -> bytes:
    """Return what binds sealed rows to their place: `kind` tells those that travel from those that stay."""
    return f"{contract}/{first_seq}/{kind}".encode()


def _label(number: int) -> bytes:
    return b"person/%d" % number

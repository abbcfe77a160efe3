"""The repository's signing keys: one PEM file (PKCS 8, ed25519) per key, in a folder that is never served.

The files are not encrypted, they are protected by their mode: in the local stack a passphrase would lie beside them and
protect nothing. In production the three root keys are moved to three people after `init`; only a change of keys needs
two of them back. The others stay with whoever publishes, because every publication needs them.
"""

import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from infra.bundles.errors import SigningKeyError
from infra.launcher.files import PRIVATE, write_file

ROOT_KEYS: Final = ("root-1", "root-2", "root-3")
ROOT_THRESHOLD: Final = 2  # one key may be lost or stolen without ending or endangering anything
TARGETS: Final = "targets"  # says which groups there are
RELEASES: Final = "releases"  # signs what each group shall run
SNAPSHOT: Final = "snapshot"
TIMESTAMP: Final = "timestamp"
KEYS: Final = (*ROOT_KEYS, TARGETS, RELEASES, SNAPSHOT, TIMESTAMP)

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class KeyFolder:
    """The keys by name. Every method raises SigningKeyError, also for a file that others may read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, name: str) -> CryptoSigner:
        """Draw a key and keep it, in place of the one that had the name."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        signer = CryptoSigner.generate_ed25519()
        write_file(self._path(name), signer.private_bytes, PRIVATE)
        return signer

    def load(self, name: str) -> CryptoSigner:
        """Return the signer of a key."""
        path = self._path(name)
        try:
            mode = path.stat().st_mode
            key = load_pem_private_key(path.read_bytes(), password=None)
        except OSError as error:
            raise SigningKeyError(f"signing key {path}: {error.strerror}: bring it back from its keeper") from error
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise SigningKeyError(f"signing key {path}: expected an ed25519 key in PEM form: {error}") from error
        if mode & _OTHERS:
            raise SigningKeyError(
                f"signing key {path}: expected mode 0600, found {stat.S_IMODE(mode):04o}: its readers can sign; "
                f"run `chmod 600 {path}`, and change the key if somebody did"
            )
        if not isinstance(key, Ed25519PrivateKey):
            raise SigningKeyError(f"signing key {path}: expected an ed25519 key, found {type(key).__name__}")
        return CryptoSigner(key)

    def has(self, name: str) -> bool:
        """Whether there is a key of this name."""
        return self._path(name).exists()

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.pem"

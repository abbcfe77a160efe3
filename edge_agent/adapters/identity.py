"""The device's keys and certificates on disk, one folder per generation.

`FOLDER/N/` holds `key.pem` (mode 0600), `certificate.pem` and `answer.json` (the enrolment service's answer, which says
how long it is good). `FOLDER/current` is a link to the generation in use: key and certificate change in one step.

A generation comes into being in this order:

1. key        the key is durable. Crash after: without a certificate it is thrown away at the next start.
2. answer     answer and certificate are durable. Crash after: the next start tries it.
3. promote    the link names it, after it has opened a connection. Crash before: 2 again.
4. removal    of older generations. Crash before: the next promotion removes them.
"""

import os
import ssl
from pathlib import Path
from typing import Final

from msgspec import Struct

from contracts import enrolment
from contracts.enrolment import Granted
from contracts.errors import EnrolmentMessageError
from edge_agent.core.updates.renewal import Validity
from edge_agent.errors import IdentityError

CURRENT: Final = "current"
KEY: Final = "key.pem"
CERTIFICATE: Final = "certificate.pem"
ANSWER: Final = "answer.json"


class Generation(Struct, frozen=True):
    """A key with its certificate. Paths are files in PEM form."""

    number: int
    cert_file: str
    key_file: str
    validity: Validity


class IdentityFolder:
    """Every method may raise OSError."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder

    def current(self) -> Generation | None:
        """Return the generation in use; None for a device that is not enrolled. Raises IdentityError."""
        try:
            number = int(os.readlink(self._folder / CURRENT))
        except FileNotFoundError:
            return None
        return self._generation(number)

    def following(self) -> Generation | None:
        """Return a complete generation newer than the one in use, which has not proved itself yet."""
        present = self._current_number()
        for number in sorted(self._numbers(), reverse=True):
            if number > present and (self._folder / str(number) / CERTIFICATE).exists():
                return self._generation(number)
        return None

    def unproved(self) -> Path | None:
        """Return the folder of a key that is not in use yet, with or without a certificate; None without one."""
        folder = self._folder / str(self._current_number() + 1)
        return folder if (folder / KEY).exists() else None

    def begin(self) -> Path:
        """Return the empty folder of a new generation; what an unfinished one left behind is removed."""
        self.discard()
        made = self._folder / str(self._current_number() + 1)
        made.mkdir(mode=0o700)
        return made

    def store(self, document: bytes) -> Generation:
        """Put the service's answer beside the key it is for.

        Raises IdentityError when the answer is a refusal or not for this key.
        """
        number = self._current_number() + 1
        folder = self._folder / str(number)
        try:
            answer = enrolment.decode_answer(document)
        except EnrolmentMessageError as error:
            raise IdentityError(f"identity {folder}: {error}") from None
        if not isinstance(answer, Granted):
            raise IdentityError(f"identity {folder}: the enrolment service refused: {answer.reason}: {answer.detail}")
        write_file(folder / ANSWER, document)
        partial = folder / f"{CERTIFICATE}.partial"
        write_file(partial, answer.certificate_pem.encode())
        _check_pair(partial, folder / KEY)
        partial.replace(folder / CERTIFICATE)  # last: its name says that the generation is complete
        sync_folder(folder)
        return self._generation(number)

    def promote(self) -> Generation:
        """Take the newest generation into use; remove the others. Raises IdentityError when there is none."""
        following = self.following()
        if following is None:
            raise IdentityError(f"identity {self._folder}: there is no next certificate to take into use")
        partial = self._folder / f"{CURRENT}.partial"
        partial.unlink(missing_ok=True)
        partial.symlink_to(str(following.number))
        partial.replace(self._folder / CURRENT)  # Step 3.
        sync_folder(self._folder)
        for number in self._numbers():
            if number != following.number:
                _remove(self._folder / str(number))  # Step 4.
        return following

    def discard(self) -> None:
        """Remove every generation newer than the one in use."""
        present = self._current_number()
        for number in self._numbers():
            if number > present:
                _remove(self._folder / str(number))

    def _current_number(self) -> int:
        try:
            return int(os.readlink(self._folder / CURRENT))
        except FileNotFoundError:
            return 0

    def _numbers(self) -> list[int]:
        return [int(name) for name in os.listdir(self._folder) if name.isdecimal()]

    def _generation(self, number: int) -> Generation:
        folder = self._folder / str(number)
        try:
            answer = enrolment.decode_answer((folder / ANSWER).read_bytes())
        except (OSError, EnrolmentMessageError) as error:
            raise IdentityError(f"identity {folder}: {error}: enrol the device again") from None
        if not isinstance(answer, Granted):
            raise IdentityError(f"identity {folder}: holds a refusal: enrol the device again")
        validity = Validity(answer.not_before_ms, answer.not_after_ms)
        return Generation(number, str(folder / CERTIFICATE), str(folder / KEY), validity)


def write_file(path: Path, data: bytes) -> None:
    """Write a file that only its owner reads, durable when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Return once the names in a folder would survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    import shutil  # 0.3 MB, once in a month

    shutil.rmtree(folder)


def _check_pair(certificate: Path, key: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise IdentityError(f"identity {key.parent}: the certificate is not for this key: {error}") from None

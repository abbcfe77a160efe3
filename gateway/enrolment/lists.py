"""Revocation lists in a folder that OpenSSL searches (`capath`): `HASH.r0`, `HASH.r1` and so on, for one authority.

For every certificate that it checks OpenSSL looks for a file with the next number, keeps all it has read, and believes
the list with the latest time, in whole seconds. So a list is in force with the next connection, without a signal and
without a restart; and each list needs a later second than the one before. Files are only added while the broker runs,
and become one before it starts.
"""

import datetime as dt
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.enrolment.authority import (
    CLAIMS,
    DEVICES,
    PUBLIC_MODE,
    Authority,
    one_at_a_time,
    open_authority,
    public_dir,
    write_file,
)
from gateway.enrolment.core.model import RevokedSerial
from gateway.errors import AuthorityError, BrokerAwayError

# The first list is dated back: of several in one second each takes the next one, up to a list a second for an hour.
DATED_BACK: Final = dt.timedelta(hours=1)
SECOND: Final = dt.timedelta(seconds=1)


class RevocationLists:
    """The lists of one authority. Raises OSError for a disk that takes no file."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self._folder, self._authority = folder, authority
        self._stem = lists_dir(folder) / authority.name_hash
        lists_dir(folder).mkdir(mode=0o755, exist_ok=True)
        lists_dir(folder).chmod(0o755)

    @property
    def first_file(self) -> Path:
        """The list that is always there."""
        return self._path(0)

    def refuse(self, revoked: Sequence[RevokedSerial], now: dt.datetime) -> None:
        """Add a list unless the newest one has all of these already.

        Raises AuthorityError for unreadable lists, and BrokerAwayError while a new one would not be believed: after a
        list a second for an hour, or when the clock went back.
        """
        with one_at_a_time(self._folder):
            newest = self._newest()
            if newest is None:
                self._write(0, revoked, 0, now - DATED_BACK, now)
            elif not {int(entry.serial, 16) for entry in revoked} <= {entry.serial_number for entry in newest}:
                this_update = max(now - DATED_BACK, newest.last_update_utc + SECOND)
                if this_update > now:
                    raise BrokerAwayError(f"{self._stem}: the newest list is of a later time: waiting for it to pass")
                self._write(self._count(), revoked, _number(newest) + 1, this_update, now)

    def make_one(self, now: dt.datetime) -> None:
        """Make one file of all; only while no broker has read them. Makes the first one if there is none."""
        self.refuse((), now)
        with one_at_a_time(self._folder):
            count, newest = self._count(), self._newest()
            if count > 1 and newest is not None:
                # Newest first: after a crash the older ones say less and are not believed.
                write_file(self._path(0), newest.public_bytes(Encoding.PEM), PUBLIC_MODE)
                for number in range(1, count):
                    self._path(number).unlink()

    def _write(
        self, number: int, revoked: Iterable[RevokedSerial], list_number: int, at: dt.datetime, now: dt.datetime
    ) -> None:
        write_file(self._path(number), self._authority.revocation_list(revoked, list_number, at, now), PUBLIC_MODE)

    def _newest(self) -> x509.CertificateRevocationList | None:
        """The list with the highest number, unless all were being made one when the process ended."""
        count = self._count()
        found = [self._read(number) for number in sorted({0, count - 1}) if number < count and number >= 0]
        return max(found, key=lambda content: content.last_update_utc, default=None)

    def _read(self, number: int) -> x509.CertificateRevocationList:
        path = self._path(number)
        try:
            return x509.load_pem_x509_crl(path.read_bytes())
        except ValueError as error:
            raise AuthorityError(
                f"{path}: expected a revocation list: {error}; stop the broker, remove {path.parent}, start both again"
            ) from None

    def _count(self) -> int:
        count = 0
        while self._path(count).exists():
            count += 1
        return count

    def _path(self, number: int) -> Path:
        return self._stem.with_name(f"{self._stem.name}.r{number}")


def lists_dir(folder: Path) -> Path:
    """Return the folder of the lists."""
    return public_dir(folder) / "revoked"


def prepare_for_broker(folder: Path, now: dt.datetime) -> RevocationLists:
    """Make what the broker needs before it starts: both authorities, and one revocation list. Raises AuthorityError."""
    open_authority(folder, CLAIMS, now)
    lists = RevocationLists(folder, open_authority(folder, DEVICES, now))
    lists.make_one(now)
    return lists


def _number(content: x509.CertificateRevocationList) -> int:
    return content.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

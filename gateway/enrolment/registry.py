"""The registry of devices, their certificates and an audit row for whatever happened to them: one SQLite file.

Every method that changes something is one transaction, durable when it returns. One process writes, the enrolment
service; operators ask it. Times are Unix time in milliseconds.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from gateway.enrolment.core.model import AuditEntry, Certificate, Cut, Device, InvitationRecord, RevokedSerial, State
from gateway.enrolment.core.rules import NEXT, Act
from gateway.errors import RegistryError

VERSION: Final = 1
BUSY_S: Final = 5.0  # s; only a backup that reads the file can be in the way

_SCHEMA: Final = """
CREATE TABLE device (
  name TEXT PRIMARY KEY,
  device_group TEXT NOT NULL,
  state TEXT NOT NULL,
  changed_at_ms INTEGER NOT NULL,
  token_sha256 TEXT NOT NULL,
  token_expires_at_ms INTEGER NOT NULL,
  token_key_sha256 TEXT NOT NULL,
  cut_wanted TEXT NOT NULL
) STRICT;
CREATE TABLE certificate (
  serial TEXT PRIMARY KEY,
  device TEXT NOT NULL REFERENCES device (name),
  key_sha256 TEXT NOT NULL,
  pem TEXT NOT NULL,
  not_before_ms INTEGER NOT NULL,
  not_after_ms INTEGER NOT NULL,
  issued_at_ms INTEGER NOT NULL,
  revoked_at_ms INTEGER
) STRICT;
CREATE INDEX device_cut_wanted ON device (name) WHERE cut_wanted <> '';
CREATE INDEX certificate_of_device ON certificate (device, issued_at_ms);
CREATE INDEX certificate_revoked ON certificate (not_after_ms) WHERE revoked_at_ms IS NOT NULL;
CREATE TABLE audit (
  id INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,
  device TEXT NOT NULL,
  action TEXT NOT NULL,
  actor TEXT NOT NULL,
  serial TEXT NOT NULL,
  detail TEXT NOT NULL
) STRICT;
CREATE INDEX audit_of_device ON audit (device, id);
"""


class Registry:
    """All methods belong to one thread. Raises RegistryError when the file is not one we can use."""

    def __init__(self, file: Path) -> None:
        file.touch(mode=0o600)
        self._database = sqlite3.connect(file, timeout=BUSY_S, isolation_level=None)
        try:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("PRAGMA foreign_keys = ON")
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
                version = VERSION
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise RegistryError(f"registry {file}: {error}: bring the file back from a backup") from None
        if version != VERSION:
            self._database.close()
            raise RegistryError(f"registry {file}: expected version {VERSION}, found {version}: use a newer Fieldlake")

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def device(self, name: str) -> Device | None:
        """Return what is known of a device."""
        found = self._devices("WHERE name = ?", (name,))
        return found[0] if found else None

    def devices(self, after: str, most: int) -> list[Device]:
        """Return devices in the order of their names, from the one after `after`."""
        return self._devices("WHERE name > ? ORDER BY name LIMIT ?", (after, most))

    def certificate_for_key(self, device: str, key_sha256: str, now_ms: int) -> Certificate | None:
        """Return the newest certificate that this key of the device has and may use."""
        rows = self._certificates(
            "WHERE device = ? AND key_sha256 = ? AND revoked_at_ms IS NULL AND not_after_ms > ? "
            "ORDER BY issued_at_ms DESC, rowid DESC LIMIT 1",
            (device, key_sha256, now_ms),
        )
        return rows[0] if rows else None

    def invite(
        self, device: str, group: str, token_sha256: str, expires_at_ms: int, *, actor: str, now_ms: int
    ) -> None:
        """Note an invitation; an older one of the device is void."""
        with self._transaction():
            known = self.device(device)
            state = NEXT[(None if known is None else known.state, Act.INVITE)]
            self._database.execute(
                "INSERT INTO device VALUES (?, ?, ?, ?, ?, ?, '', '') ON CONFLICT (name) DO UPDATE SET "
                "device_group = excluded.device_group, state = excluded.state, changed_at_ms = excluded.changed_at_ms, "
                "token_sha256 = excluded.token_sha256, token_expires_at_ms = excluded.token_expires_at_ms, "
                "token_key_sha256 = ''",
                (device, group, state, now_ms, token_sha256, expires_at_ms),
            )
            self._audit(now_ms, device, "invite", actor, "", f"group {group}")

    def enrol(self, device: str, token_sha256: str, issued: Certificate, *, now_ms: int) -> bool:
        """Spend the token on the certificate's key, and revoke what the device had before.

        False when the token was spent on another key, or is void by now: then nothing has changed.
        """
        with self._transaction():
            spent = self._database.execute(
                "UPDATE device SET token_key_sha256 = ?, state = ?, changed_at_ms = ? WHERE name = ? "
                "AND token_sha256 = ? AND token_key_sha256 IN ('', ?) AND state <> ?",
                (issued.key_sha256, State.ACTIVE, now_ms, device, token_sha256, issued.key_sha256, State.REVOKED),
            )
            if spent.rowcount == 0:
                return False
            self._revoke_certificates(device, now_ms, "enrol", device, "replaced by a new enrolment")
            self._insert(device, issued, now_ms)
            self._audit(now_ms, device, "enrol", device, issued.serial, "")
        return True

    def renew(self, device: str, issued: Certificate, *, now_ms: int) -> bool:
        """Note a next certificate; the present one stays good. False when the device may have none by now."""
        with self._transaction():
            known = self.device(device)
            if known is None or (known.state, Act.RENEW) not in NEXT:
                return False
            self._insert(device, issued, now_ms)
            self._audit(now_ms, device, "renew", device, issued.serial, "")
        return True

    def revoke(self, device: str, *, actor: str, reason: str, now_ms: int) -> int | None:
        """Take a device out of service; return how many good certificates it had, None for an unknown device."""
        with self._transaction():
            known = self.device(device)
            if known is None:
                return None
            self._database.execute(
                "UPDATE device SET state = ?, changed_at_ms = ?, cut_wanted = ? WHERE name = ?",
                (NEXT[(known.state, Act.REVOKE)], now_ms, Cut.HOLD, device),
            )
            count = self._revoke_certificates(device, now_ms, "revoke", actor, reason)
            if count == 0:
                self._audit(now_ms, device, "revoke", actor, "", reason)
        return count

    def revoked(self, now_ms: int) -> list[RevokedSerial]:
        """Return every revoked certificate that has not expired: what the revocation list holds."""
        rows = self._database.execute(
            "SELECT serial, revoked_at_ms FROM certificate WHERE revoked_at_ms IS NOT NULL AND not_after_ms > ? "
            "ORDER BY revoked_at_ms, serial",
            (now_ms,),
        )
        return [RevokedSerial(*row) for row in rows]

    def cuts_wanted(self) -> dict[str, Cut]:
        """Return the devices whose connection is still to be dealt with."""
        rows = self._database.execute("SELECT name, cut_wanted FROM device WHERE cut_wanted <> ''")
        return {str(name): Cut(kind) for name, kind in rows}

    def cut(self, device: str) -> None:
        """Note that a device's connection is dealt with."""
        self._database.execute("UPDATE device SET cut_wanted = '' WHERE name = ?", (device,))

    def audit(self, device: str) -> list[AuditEntry]:
        """Return what happened to a device, oldest first."""
        rows = self._database.execute(
            "SELECT at_ms, device, action, actor, serial, detail FROM audit WHERE device = ? ORDER BY id", (device,)
        )
        return [AuditEntry(*row) for row in rows]

    def _revoke_certificates(self, device: str, now_ms: int, action: str, actor: str, detail: str) -> int:
        serials = [
            str(serial)
            for (serial,) in self._database.execute(
                "UPDATE certificate SET revoked_at_ms = ? WHERE device = ? AND revoked_at_ms IS NULL "
                "AND not_after_ms > ? RETURNING serial",
                (now_ms, device, now_ms),
            ).fetchall()
        ]
        for serial in serials:
            self._audit(now_ms, device, "revoke", actor, serial, detail)
        if serials and action == "enrol":
            self._database.execute("UPDATE device SET cut_wanted = ? WHERE name = ?", (Cut.ONCE, device))
        return len(serials)

    def _insert(self, device: str, issued: Certificate, now_ms: int) -> None:
        self._database.execute(
            "INSERT INTO certificate VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
            (
                issued.serial, device, issued.key_sha256, issued.pem, issued.not_before_ms, issued.not_after_ms, now_ms,
            ),
        )  # fmt: skip

    def _audit(self, now_ms: int, device: str, action: str, actor: str, serial: str, detail: str) -> None:
        self._database.execute(
            "INSERT INTO audit (at_ms, device, action, actor, serial, detail) VALUES (?, ?, ?, ?, ?, ?)",
            (now_ms, device, action, actor, serial, detail),
        )

    def _devices(self, condition: str, values: tuple[object, ...]) -> list[Device]:
        rows = self._database.execute(
            "SELECT name, device_group, state, changed_at_ms, token_sha256, token_expires_at_ms, token_key_sha256 "
            f"FROM device {condition}",
            values,
        ).fetchall()
        return [
            Device(name, group, State(state), changed_at_ms, InvitationRecord(token, expires_at_ms, key), newest)
            for name, group, state, changed_at_ms, token, expires_at_ms, key in rows
            for newest in [self._newest(name)]
        ]

    def _newest(self, device: str) -> Certificate | None:
        rows = self._certificates("WHERE device = ? ORDER BY issued_at_ms DESC, rowid DESC LIMIT 1", (device,))
        return rows[0] if rows else None

    def _certificates(self, condition: str, values: tuple[object, ...]) -> list[Certificate]:
        rows = self._database.execute(
            f"SELECT serial, key_sha256, pem, not_before_ms, not_after_ms FROM certificate {condition}", values
        )
        with closing(rows):
            return [Certificate(*row) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

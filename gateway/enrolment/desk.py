"""What the enrolment service answers, and in which order it does what it answers.

A first or a next certificate:

1. sign       the certificate exists in memory only. Crash after: nobody has it, it was never issued.
2. registry   token spent on the key, certificate and audit row, one transaction. Crash after: the device asks again
              with the same key and is given the same certificate.
3. answer     by the caller.

A revocation:

1. registry   state, certificates, audit rows, `cut wanted`, one transaction. Crash after: a start finds the wish.
2. list       the revocation list lies where the broker reads it for every new connection: none by these certificates.
3. cut        the live connection ends, and so does every one that began before 2 and shows itself only now: the session
              is held until the broker has dropped those. Only this order leaves no gap.
4. registry   the wish is gone. Crash before: 2 and 3 again, which changes nothing.
"""

import datetime as dt
import logging
from collections.abc import Callable
from typing import Final

from contracts.enrolment import (
    Answer,
    DeviceEntry,
    Devices,
    EnrolRequest,
    Granted,
    Invite,
    Invited,
    ListDevices,
    OperatorAnswer,
    OperatorRequest,
    Refused,
    RenewRequest,
    Revoke,
    Revoked,
    token_sha256,
)
from contracts.ports import Clock
from contracts.topics import is_origin
from gateway.enrolment.authority import Authority, key_sha256
from gateway.enrolment.config import INVITATION_VALID_S_MAX
from gateway.enrolment.core.limits import Limiter
from gateway.enrolment.core.model import Certificate, Cut, Device
from gateway.enrolment.core.rules import NO_INVITATION, TOO_MANY, is_reserved, refuse_enrol, refuse_renew
from gateway.enrolment.ports import Door
from gateway.enrolment.registry import Registry
from gateway.errors import BrokerAwayError, RequestError

DEVICES_PER_PAGE: Final = 200  # entries; 40 kB of an answer
NOTE_CHARS_MAX: Final = 200  # characters of a group's name or a reason

_LOG: Final = logging.getLogger(__name__)


class Desk:
    """Answers requests, one after the other. `origin` and `actor` are names that the broker vouches for."""

    def __init__(
        self,
        registry: Registry,
        devices: Authority,
        claims: Authority,
        door: Door,
        clock: Clock,
        certificate_valid_s: int,
        pending_connection_s: int,
    ) -> None:
        self._registry, self._devices, self._claims = registry, devices, claims
        self._door, self._clock = door, clock
        self._valid = dt.timedelta(seconds=certificate_valid_s)
        self._pending_connection_s = pending_connection_s
        self._limiter = Limiter()
        self._held_until_s: dict[str, float] = {}
        self._listed = False  # the lists may be older than the registry, which was brought back from a backup, say

    def enrol(self, origin: str, request: EnrolRequest) -> Answer:
        """Answer a device that has an invitation."""
        token = token_sha256(request.token)
        return self._certify(
            origin,
            request.csr_pem,
            lambda device, key, now_ms: refuse_enrol(device, token, key, now_ms),
            lambda issued, now_ms: self._registry.enrol(origin, token, issued, now_ms=now_ms),
        )

    def renew(self, origin: str, request: RenewRequest) -> Answer:
        """Answer a device that has a certificate."""
        return self._certify(
            origin,
            request.csr_pem,
            lambda device, _key, _now_ms: refuse_renew(device),
            lambda issued, now_ms: self._registry.renew(origin, issued, now_ms=now_ms),
        )

    def operate(self, actor: str, request: OperatorRequest) -> OperatorAnswer:
        """Answer an operator."""
        match request:
            case Invite():
                return self._invite(actor, request)
            case Revoke():
                return self._revoke(actor, request)
            case ListDevices():
                found = self._registry.devices(request.after, DEVICES_PER_PAGE + 1)
                entries = tuple(_entry(device) for device in found[:DEVICES_PER_PAGE])
                return Devices(entries, more=len(found) > DEVICES_PER_PAGE)

    def enforce(self) -> None:
        """Bring what the registry wants to the broker; nothing happens when all of it is in force.

        Raises BrokerAwayError; the wish stays.
        """
        wanted = self._registry.cuts_wanted()
        if not self._listed or wanted.keys() - self._held_until_s.keys():
            self._door.refuse(self._registry.revoked(self._clock.now_ms()))  # Step 2.
            self._listed = True
        for device, kind in wanted.items():
            if self._is_cut(device, kind):  # Step 3.
                self._registry.cut(device)  # Step 4.

    def _is_cut(self, device: str, kind: Cut) -> bool:
        """Deal with a device's connection as far as can be done now; True when there is nothing left to do."""
        now_s, until_s = self._clock.monotonic_s(), self._held_until_s.get(device)
        if kind is Cut.ONCE:
            self._door.cut(device)
            return True
        if until_s is None:
            self._door.hold(device)
            self._held_until_s[device] = now_s + self._pending_connection_s
            _LOG.info("revocation_in_force device=%s", device)
        elif now_s >= until_s:
            self._door.release(device)
            del self._held_until_s[device]
            return True
        return False

    def _certify(
        self,
        origin: str,
        csr_pem: str,
        refuse: Callable[[Device | None, str, int], Refused | None],
        record: Callable[[Certificate, int], bool],
    ) -> Answer:
        if not self._limiter.admit(origin, self._clock.monotonic_s()):
            return TOO_MANY
        try:
            key = key_sha256(csr_pem)
        except RequestError as error:
            return Refused("bad_request", str(error))
        now_ms = self._clock.now_ms()
        refused = refuse(self._registry.device(origin), key, now_ms)
        if refused is not None:
            return _refused(origin, refused, key)
        issued = self._registry.certificate_for_key(origin, key, now_ms)
        if issued is None:
            issued = self._devices.sign(csr_pem, origin, self._valid, _time(now_ms))  # Step 1.
            if not record(issued, now_ms):  # Step 2.
                return _refused(origin, NO_INVITATION, key)
            _LOG.info("certificate_issued device=%s serial=%s", origin, issued.serial)
        return Granted(issued.key_sha256, issued.pem, issued.serial, issued.not_before_ms, issued.not_after_ms)

    def _invite(self, actor: str, request: Invite) -> OperatorAnswer:
        now_ms = self._clock.now_ms()
        if not is_origin(request.device) or is_reserved(request.device):
            return Refused("bad_name", f"device {request.device!r}: expected a name of letters, digits, '-', '_', '.' "
                           "that no service of ours has")  # fmt: skip
        if not 0 < request.valid_s <= INVITATION_VALID_S_MAX:
            return Refused("bad_request", f"expected an invitation for 1 to {INVITATION_VALID_S_MAX} s")
        if len(request.group) > NOTE_CHARS_MAX:
            return Refused("bad_request", f"group: expected up to {NOTE_CHARS_MAX} characters")
        if self._registry.cuts_wanted().get(request.device) is Cut.HOLD:
            return Refused(
                "being_cut",
                f"device {request.device}: its connections are being cut for {self._pending_connection_s} s after its "
                "revocation; invite it again after that",
                retry=True,
            )
        try:
            valid = dt.timedelta(seconds=request.valid_s)
            claim = self._claims.sign(request.csr_pem, request.device, valid, _time(now_ms))
        except RequestError as error:
            return Refused("bad_request", str(error))
        expires_at_ms = now_ms + request.valid_s * 1_000
        self._registry.invite(
            request.device, request.group, request.token_sha256, expires_at_ms, actor=actor, now_ms=now_ms
        )
        _LOG.info("invited device=%s group=%r by=%s", request.device, request.group, actor)
        return Invited(claim.pem, expires_at_ms)

    def _revoke(self, actor: str, request: Revoke) -> OperatorAnswer:
        began_s, reason = self._clock.monotonic_s(), request.reason[:NOTE_CHARS_MAX]
        count = self._registry.revoke(
            request.device, actor=actor, reason=reason, now_ms=self._clock.now_ms()
        )  # Step 1.
        if count is None:
            return Refused("unknown_device", f"device {request.device!r}: not in the registry; list what is")
        try:
            self.enforce()
        except BrokerAwayError as error:
            _LOG.error("revocation_waits device=%s why=%r do=%r", request.device, str(error), "start the broker")
            return Refused(
                "broker_away",
                f"device {request.device}: revoked in the registry; the broker is told once it answers: {error}",
                retry=True,
            )
        return Revoked(request.device, count, round((self._clock.monotonic_s() - began_s) * 1_000))


def _refused(origin: str, why: Refused, key: str) -> Refused:
    _LOG.warning("refused device=%s reason=%s", origin, why.reason)
    return Refused(why.reason, why.detail, why.retry, key)


def _entry(device: Device) -> DeviceEntry:
    newest = device.certificate
    return DeviceEntry(
        device.name,
        device.group,
        device.state,
        "" if newest is None else newest.serial,
        0 if newest is None else newest.not_after_ms,
        device.changed_at_ms,
    )


def _time(unix_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(unix_ms / 1_000, dt.UTC)

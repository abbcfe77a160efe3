"""Registry and desk: what is answered, what is written down, and what a crash between two steps leaves behind."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from contracts.enrolment import (
    Devices,
    EnrolRequest,
    Granted,
    Invite,
    Invited,
    ListDevices,
    Refused,
    RenewRequest,
    Revoke,
    Revoked,
    token_sha256,
)
from edge_agent.enrolment.keys import make_request
from gateway.enrolment.authority import CLAIMS, DEVICES, Authority, open_authority
from gateway.enrolment.core.model import Certificate, RevokedSerial, State
from gateway.enrolment.desk import DEVICES_PER_PAGE, Desk
from gateway.enrolment.registry import Registry
from gateway.errors import BrokerAwayError, RegistryError
from tests.enrolment.test_authority import NOW

VALID_S = 3_600
PENDING_S = 100
DAY_MS = 86_400_000


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.ms = int(NOW.timestamp() * 1_000)

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1_000


class CrashError(Exception):
    """The process ends here."""


class Broker:
    """Refuses and cuts as it is told; may be away, and may crash the teller before or after it has done its part."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.connected: set[str] = set()
        self.held: set[str] = set()
        self.away = False
        self.crash_at = ""

    def refuse(self, revoked: Sequence[RevokedSerial]) -> None:
        self._crash("before list")
        self.refused |= {entry.serial for entry in revoked}
        self._crash("after list")

    def cut(self, device: str) -> None:
        if self.away:
            raise BrokerAwayError("broker: away")
        self._crash("before cut")
        self.connected.discard(device)
        self._crash("after cut")

    def hold(self, device: str) -> None:
        self.cut(device)
        self.held.add(device)

    def release(self, device: str) -> None:
        self._crash("before release")
        self.held.discard(device)
        self._crash("after release")

    def _crash(self, at: str) -> None:
        if self.crash_at == at:
            self.crash_at = ""
            raise CrashError


class House:
    """A desk with all that it needs; `restart` is what a new process does."""

    def __init__(self, folder: Path, devices: Authority, claims: Authority) -> None:
        self.folder, self.clock, self.broker = folder, Clock(), Broker()
        self.devices, self.claims = devices, claims
        self.registry = Registry(folder / "registry.sqlite")
        self.restart()

    def restart(self) -> None:
        self.registry.close()
        self.registry = Registry(self.folder / "registry.sqlite")
        self.desk = Desk(self.registry, self.devices, self.claims, self.broker, self.clock, VALID_S, PENDING_S)

    def csr(self, key: str) -> str:
        own = self.folder / "keys" / key
        own.mkdir(parents=True, exist_ok=True)
        return make_request(own, key).csr_pem

    def invite(self, device: str, token: str = "token", valid_s: int = 600) -> object:
        return self.desk.operate(
            "operator", Invite(device, "冲压车间", token_sha256(token), self.csr("claim"), valid_s)
        )

    def settle(self) -> None:
        """Enforce, wait as long as a connection may wait, enforce."""
        self.desk.enforce()
        self.clock.ms += PENDING_S * 1_000
        self.desk.enforce()

    def enrol(self, device: str, key: str, token: str = "token") -> Granted | Refused:
        return self.desk.enrol(device, EnrolRequest(self.csr(key), token))

    def renew(self, device: str, key: str) -> Granted | Refused:
        return self.desk.renew(device, RenewRequest(self.csr(key)))

    def actions(self, device: str) -> list[tuple[str, str]]:
        return [(entry.action, entry.actor) for entry in self.registry.audit(device)]


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    folder = tmp_path_factory.mktemp("authorities")
    return open_authority(folder, DEVICES, NOW), open_authority(folder, CLAIMS, NOW)


@pytest.fixture
def house(tmp_path: Path, authorities: tuple[Authority, Authority]) -> Iterator[House]:
    made = House(tmp_path, *authorities)
    yield made
    made.registry.close()


def test_everything_that_happens_to_a_device_is_written_down(house: House) -> None:
    assert isinstance(house.invite("press-01"), Invited)
    first = house.enrol("press-01", "key-1")
    following = house.renew("press-01", "key-2")
    assert isinstance(first, Granted)
    assert isinstance(following, Granted)
    done = house.desk.operate("operator", Revoke("press-01", "gestohlen"))
    assert isinstance(done, Revoked)
    assert done.certificates == 2
    entries = house.registry.audit("press-01")
    assert [(e.action, e.actor, e.serial) for e in entries[:3]] == [
        ("invite", "operator", ""), ("enrol", "press-01", first.serial), ("renew", "press-01", following.serial),
    ]  # fmt: skip
    assert {(e.action, e.actor, e.serial, e.detail) for e in entries[3:]} == {
        ("revoke", "operator", serial, "gestohlen") for serial in (first.serial, following.serial)
    }
    assert house.broker.refused == {first.serial, following.serial}


def test_a_repeated_request_gets_the_same_certificate_and_no_second_entry(house: House) -> None:
    house.invite("press-01")
    assert house.enrol("press-01", "key-1") == house.enrol("press-01", "key-1")
    assert house.renew("press-01", "key-2") == house.renew("press-01", "key-2")
    assert [action for action, _ in house.actions("press-01")] == ["invite", "enrol", "renew"]


def test_a_token_is_for_one_key_and_for_one_device(house: House) -> None:
    house.invite("press-01")
    house.invite("press-02", "other token")
    assert isinstance(house.enrol("press-01", "key-1"), Granted)
    for device, key, token, reason in (
        ("press-01", "key-2", "token", "token_spent"),
        ("press-02", "key-2", "token", "no_invitation"),
        ("press-03", "key-2", "token", "no_invitation"),
    ):
        answer = house.enrol(device, key, token)
        assert isinstance(answer, Refused)
        assert answer.reason == reason


def test_of_two_who_both_passed_the_check_one_is_written(house: House) -> None:
    """The check and the transaction are two moments; the transaction decides."""
    house.invite("press-01")
    first, second = (
        Certificate(serial, key, "pem", house.clock.ms, house.clock.ms + DAY_MS)
        for serial, key in (("1a", "aa"), ("1b", "bb"))
    )
    token = token_sha256("token")
    assert house.registry.enrol("press-01", token, first, now_ms=house.clock.ms)
    assert not house.registry.enrol("press-01", token, second, now_ms=house.clock.ms)
    house.registry.revoke("press-01", actor="operator", reason="", now_ms=house.clock.ms)
    assert not house.registry.enrol("press-01", token, first, now_ms=house.clock.ms)
    assert not house.registry.renew("press-01", second, now_ms=house.clock.ms)


def test_an_invitation_expires(house: House) -> None:
    house.invite("press-01", valid_s=60)
    house.clock.ms += 60_000
    answer = house.enrol("press-01", "key-1")
    assert isinstance(answer, Refused)
    assert answer.reason == "invitation_expired"


def test_a_new_enrolment_puts_the_old_key_out(house: House) -> None:
    house.invite("press-01")
    first = house.enrol("press-01", "key-1")
    house.invite("press-01", "token 2")
    house.broker.connected.add("press-01")
    second = house.enrol("press-01", "key-2", "token 2")
    house.desk.enforce()
    assert isinstance(first, Granted)
    assert isinstance(second, Granted)
    assert house.broker.refused == {first.serial}
    assert house.broker.connected == set()


def test_who_asks_too_often_is_not_looked_at(house: House) -> None:
    answers = [house.enrol("press-01", "key-1") for _ in range(30)]
    reasons = [answer.reason for answer in answers if isinstance(answer, Refused)]
    assert reasons[0] == "no_invitation"
    assert reasons[-1] == "too_many_requests"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (Invite("gateway", "", "00", "", 60), "bad_name"),
        (Invite("a/b", "", "00", "", 60), "bad_name"),
        (Invite("press-01", "", "00", "no request", 60), "bad_request"),
        (Invite("press-01", "", "00", "", 0), "bad_request"),
        (Invite("press-01", "", "00", "", 10**9), "bad_request"),
        (Invite("press-01", "g" * 201, "00", "", 60), "bad_request"),
        (Revoke("unknown"), "unknown_device"),
    ],
)
def test_what_an_operator_cannot_have_is_refused(house: House, request_: Invite | Revoke, reason: str) -> None:
    answer = house.desk.operate("operator", request_)
    assert isinstance(answer, Refused)
    assert answer.reason == reason
    assert house.registry.devices("", 10) == []


def test_devices_are_listed_page_by_page(house: House) -> None:
    names = [f"press-{number:04}" for number in range(DEVICES_PER_PAGE + 3)]
    for name in names:
        house.registry.invite(name, "组", "00", 0, actor="operator", now_ms=0)
    first = house.desk.operate("operator", ListDevices())
    assert isinstance(first, Devices)
    assert first.more
    second = house.desk.operate("operator", ListDevices(first.devices[-1].device))
    assert isinstance(second, Devices)
    assert not second.more
    assert [entry.device for entry in (*first.devices, *second.devices)] == names


def test_a_broker_that_is_away_is_told_later(house: House) -> None:
    house.invite("press-01")
    granted = house.enrol("press-01", "key-1")
    house.broker.away, house.broker.connected = True, {"press-01"}
    answer = house.desk.operate("operator", Revoke("press-01"))
    assert isinstance(answer, Refused)
    assert (answer.reason, answer.retry) == ("broker_away", True)
    assert isinstance(granted, Granted)
    assert house.broker.refused == {granted.serial}
    house.broker.away = False
    house.desk.enforce()
    assert house.broker.connected == set()
    assert house.broker.held == {"press-01"}
    house.settle()
    assert house.broker.held == set()
    assert house.registry.cuts_wanted() == {}


CRASHES = ["before list", "after list", "before cut", "after cut", "before release", "after release"]


@pytest.mark.parametrize("crash_at", CRASHES)
def test_a_revocation_is_finished_after_a_crash_between_any_two_steps(house: House, crash_at: str) -> None:
    house.invite("press-01")
    granted = house.enrol("press-01", "key-1")
    assert isinstance(granted, Granted)
    house.desk.enforce()
    house.broker.connected, house.broker.crash_at = {"press-01"}, crash_at

    def revoke_and_wait() -> None:
        house.desk.operate("operator", Revoke("press-01"))
        house.settle()

    with pytest.raises(CrashError):
        revoke_and_wait()
    house.broker.held.clear()  # connections end with their process
    house.restart()
    house.desk.enforce()
    assert house.broker.refused == {granted.serial}
    assert house.broker.connected == set()
    assert house.broker.held == {"press-01"}
    house.settle()
    assert house.broker.held == set()
    assert house.registry.cuts_wanted() == {}
    assert isinstance(house.renew("press-01", "key-2"), Refused)


def test_a_device_is_not_invited_while_its_connections_are_being_cut(house: House) -> None:
    house.invite("press-01")
    house.enrol("press-01", "key-1")
    house.desk.operate("operator", Revoke("press-01"))
    answer = house.invite("press-01")
    assert isinstance(answer, Refused)
    assert (answer.reason, answer.retry) == ("being_cut", True)
    house.settle()
    assert isinstance(house.invite("press-01"), Invited)


def test_a_certificate_that_was_signed_and_not_written_down_was_never_issued(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.invite("press-01")

    def crash(*_: object, **__: object) -> bool:
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(house.registry, "enrol", crash)
        with pytest.raises(CrashError):
            house.enrol("press-01", "key-1")
    house.restart()
    assert isinstance(house.enrol("press-01", "key-2"), Granted)
    assert [action for action, _ in house.actions("press-01")] == ["invite", "enrol"]


def test_lists_older_than_the_registry_are_brought_up_to_date_at_a_start(house: House) -> None:
    house.invite("press-01")
    granted = house.enrol("press-01", "key-1")
    house.desk.operate("operator", Revoke("press-01"))
    house.broker.refused.clear()  # brought back from a backup
    house.restart()
    house.desk.enforce()
    assert isinstance(granted, Granted)
    assert house.broker.refused == {granted.serial}


def test_a_file_that_is_no_registry_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "registry.sqlite"
    file.write_bytes(b"rubbish" * 1_000)
    with pytest.raises(RegistryError, match="backup"):
        Registry(file)


def test_a_registry_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.sqlite")
    registry._database.execute("PRAGMA user_version = 99")
    registry.close()
    with pytest.raises(RegistryError, match="found 99"):
        Registry(tmp_path / "registry.sqlite")


def test_the_registry_is_its_owners(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.sqlite")
    registry.invite("press-01", "", "00", 0, actor="operator", now_ms=0)
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}
    registry.close()


class Life(RuleBasedStateMachine):
    """Any sequence of events: what the registry revoked is refused, and what it granted last is not."""

    names = st.sampled_from(["press-01", "press-02"])
    keys = st.sampled_from(["key-1", "key-2", "key-3"])

    @initialize()
    def begin(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.registry = Registry(Path(self._folder.name) / "registry.sqlite")
        self.serial, self.now_ms = 0, 1
        self.out: dict[str, set[str]] = {"press-01": set(), "press-02": set()}
        self.good: dict[str, set[str]] = {"press-01": set(), "press-02": set()}

    def certificate(self, key: str) -> Certificate:
        self.serial, self.now_ms = self.serial + 1, self.now_ms + 1
        return Certificate(f"{self.serial:x}", key, "pem", 0, DAY_MS)

    @rule(name=names, token=st.sampled_from(["a", "b"]))
    def invite(self, name: str, token: str) -> None:
        self.registry.invite(name, "", token, DAY_MS, actor="operator", now_ms=self.now_ms)

    @rule(name=names, key=keys, token=st.sampled_from(["a", "b"]))
    def enrol(self, name: str, key: str, token: str) -> None:
        issued = self.certificate(key)
        if self.registry.enrol(name, token, issued, now_ms=self.now_ms):
            self.out[name] |= self.good[name]
            self.good[name] = {issued.serial}

    @rule(name=names, key=keys)
    def renew(self, name: str, key: str) -> None:
        issued = self.certificate(key)
        if self.registry.renew(name, issued, now_ms=self.now_ms):
            self.good[name].add(issued.serial)

    @rule(name=names)
    def revoke(self, name: str) -> None:
        if self.registry.revoke(name, actor="operator", reason="", now_ms=self.now_ms) is not None:
            self.out[name] |= self.good[name]
            self.good[name] = set()

    @invariant()
    def revoked_is_refused(self) -> None:
        listed = {entry.serial for entry in self.registry.revoked(self.now_ms)}
        assert listed == set().union(*self.out.values())
        for name, serials in self.good.items():
            device = self.registry.device(name)
            assert not serials or (device is not None and device.state is State.ACTIVE)

    def teardown(self) -> None:
        self.registry.close()
        self._folder.cleanup()


class TestLife(Life.TestCase):  # type: ignore[name-defined, misc]
    """Few and long: every run opens a file."""

    settings = profile(max_examples=10, stateful_step_count=25)

"""Enrolment, renewal and revocation against a real broker, with kills in between."""

import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, time_ns

import msgspec
import pytest

from contracts import enrolment, topics
from contracts.enrolment import Granted, Invitation, Refused, RenewRequest
from edge_agent.adapters.identity import Generation, IdentityFolder
from edge_agent.enrolment.bootstrap import enrol
from edge_agent.enrolment.keys import make_request
from edge_agent.errors import InvitationError, NotEnrolledError
from gateway.enrolment.__main__ import REGISTRY_FILE
from gateway.enrolment.authority import private_dir
from gateway.enrolment.registry import Registry
from gateway.errors import OperatorRefusedError
from infra.launcher.certificates import GATEWAY_NAME
from infra.launcher.settings import HOST
from infra.setup.paths import repo_root
from tests.enrolment.plant import Peer, Plant
from tests.waiting import eventually

pytestmark = pytest.mark.stack

REVOCATION_WITHIN_S = 5.0
HANDSHAKE_S = 10.0


def device_states(plant: Plant) -> dict[str, str]:
    with plant.operator() as operator:
        return {entry.device: entry.state for entry in operator.devices()}


def renew(peer: Peer, device: str, folder: Path) -> enrolment.Answer:
    """Ask for another certificate over a device's own connection."""
    folder.mkdir(exist_ok=True)
    peer.subscribe([topics.certificate(device)])
    before = len(peer.received)
    peer.publish(topics.renew_request(device), enrolment.encode(RenewRequest(make_request(folder, device).csr_pem)))
    eventually(lambda: len(peer.received) > before, "the answer to a renewal")
    return enrolment.decode_answer(peer.received[-1][1])


def can_come_in(plant: Plant, identity: Generation, device: str) -> bool:
    peer = plant.peer("mosquitto", identity, device)
    came = peer.is_in()
    peer.close()
    return came


def test_an_invited_device_enrols_with_a_key_of_its_own(plant: Plant) -> None:
    identity = plant.enrol("own-key-1")
    key = Path(identity.key_file)
    assert key.stat().st_mode & 0o777 == 0o600
    assert "PRIVATE KEY" in key.read_text()
    assert can_come_in(plant, identity, "own-key-1")
    assert device_states(plant)["own-key-1"] == "active"
    stored = b"".join(path.read_bytes() for path in plant.folder.rglob("*") if path.is_file())
    assert key.read_bytes() not in stored
    assert Path(plant.folder / "private").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in (plant.folder / "private").glob("*.key"))


def test_the_token_is_stored_nowhere(plant: Plant) -> None:
    invitation = plant.invite("hashed-1")
    stored = b"".join(path.read_bytes() for path in plant.folder.rglob("*") if path.is_file())
    assert invitation.token.encode() not in stored
    assert enrolment.token_sha256(invitation.token).encode() in stored
    assert invitation.token not in plant.service.log_file.read_text()


def test_of_many_who_use_a_token_at_once_one_wins(plant: Plant) -> None:
    invitation = plant.invite("many-1")
    folders = [plant.identity(f"many-1-thief-{number}") for number in range(4)]

    def attempt(folder: IdentityFolder) -> Generation | str:
        """They show one claim certificate, so the broker lets only one of them in at a time."""
        for _ in range(20):
            try:
                return enrol(invitation, folder)
            except InvitationError as error:
                return str(error)
            except NotEnrolledError:
                continue
        return "gave up"

    with ThreadPoolExecutor(len(folders)) as pool:
        results = list(pool.map(attempt, folders))
    winners = [result for result in results if isinstance(result, Generation)]
    assert len(winners) == 1, results
    assert all("another key has used this token" in result for result in results if isinstance(result, str))
    assert can_come_in(plant, winners[0], "many-1")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"token": "A" * 32}, "no invitation that this token opens"),
        ({"token": ""}, "no invitation that this token opens"),
    ],
)
def test_a_wrong_token_opens_nothing(plant: Plant, change: dict[str, str], expected: str) -> None:
    invitation = msgspec.structs.replace(plant.invite("wrong-1"), **change)
    with pytest.raises(InvitationError, match=expected):
        enrol(invitation, plant.identity("wrong-1"))


def test_an_older_invitation_is_void(plant: Plant) -> None:
    older = plant.invite("older-1")
    newer = plant.invite("older-1")
    with pytest.raises(InvitationError, match="no invitation that this token opens"):
        enrol(older, plant.identity("older-1-a"))
    assert can_come_in(plant, enrol(newer, plant.identity("older-1-b")), "older-1")


@pytest.mark.parametrize("lost", [("current",), ("current", "1/certificate.pem"), ("current", "1/answer.json")])
def test_a_crash_while_enrolling_costs_no_second_invitation(plant: Plant, lost: tuple[str, ...]) -> None:
    device = f"again-{len(lost)}-{len(lost[-1])}"
    invitation, identity = plant.invite(device), plant.identity(device)
    first = enrol(invitation, identity)
    certificate = Path(first.cert_file).read_bytes()
    for name in lost:
        (plant.settings.state_dir / "devices" / device / name).unlink()
    assert Path(enrol(invitation, identity).cert_file).read_bytes() == certificate


def test_a_device_renews_over_its_own_connection(plant: Plant, tmp_path: Path) -> None:
    identity = plant.enrol("renew-1")
    peer = plant.peer("mosquitto", identity, "renew-1")
    assert peer.is_in()
    answer = renew(peer, "renew-1", tmp_path)
    assert isinstance(answer, Granted)
    assert answer.not_after_ms >= identity.validity.not_after_ms
    (tmp_path / "certificate.pem").write_text(answer.certificate_pem)
    following = Generation(2, str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem"), identity.validity)
    assert can_come_in(plant, following, "renew-1")
    assert can_come_in(plant, identity, "renew-1")  # until it expires: the device may need it


def test_rubbish_and_strangers_are_refused_with_a_reason(plant: Plant, tmp_path: Path) -> None:
    peer = plant.peer("mosquitto", plant.enrol("rubbish-1"), "rubbish-1")
    assert peer.is_in()
    peer.subscribe([topics.certificate("rubbish-1")])
    for payload in (b"", b"{", b"\xff\xfe", b'{"csr_pem": "no"}', b"[" * 10_000):
        before = len(peer.received)
        peer.publish(topics.renew_request("rubbish-1"), payload)
        eventually(lambda before=before: len(peer.received) > before, "an answer")
        answer = enrolment.decode_answer(peer.received[-1][1])
        assert isinstance(answer, Refused)
        assert answer.reason == "bad_request"


def test_who_asks_too_often_waits(plant: Plant, tmp_path: Path) -> None:
    peer = plant.peer("mosquitto", plant.enrol("often-1"), "often-1")
    assert peer.is_in()
    answers = [renew(peer, "often-1", tmp_path / str(number)) for number in range(12)]
    assert [type(answer) for answer in answers[:5]] == [Granted] * 5
    last = answers[-1]
    assert isinstance(last, Refused)
    assert (last.reason, last.retry) == ("too_many_requests", True)


@pytest.mark.parametrize("name", ["", "a/b", "a b", "+", "#", "x" * 65, "gateway", "enrolment", "fieldlake-gateway-0"])
def test_a_name_that_no_device_may_have_is_refused(plant: Plant, name: str) -> None:
    with pytest.raises(OperatorRefusedError, match="expected a name"):
        plant.invite(name)


def test_a_revoked_device_is_cut_and_cannot_come_back(
    plant: Plant, record_property: Callable[[str, object], None], tmp_path: Path
) -> None:
    identity, bystander = plant.enrol("revoked-1"), plant.enrol("bystander-1")
    peer = plant.peer("mosquitto", identity, "revoked-1", keep_session=True)
    beside = plant.peer("mosquitto", bystander, "bystander-1")
    assert peer.is_in()
    assert beside.is_in()
    renewed = renew(peer, "revoked-1", tmp_path)
    assert isinstance(renewed, Granted)
    (tmp_path / "certificate.pem").write_text(renewed.certificate_pem)
    following = Generation(2, str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem"), identity.validity)

    began_s = monotonic()
    with plant.operator() as operator:
        done = operator.revoke("revoked-1", "stolen")
    eventually(peer.gone.is_set, "the live connection is cut")
    took_s = monotonic() - began_s
    record_property("revocation_s", round(took_s, 3))

    assert done.certificates == 2
    assert done.in_force_ms < REVOCATION_WITHIN_S * 1_000
    assert not can_come_in(plant, identity, "revoked-1")
    assert not can_come_in(plant, following, "revoked-1")
    assert not beside.gone.is_set()
    assert can_come_in(plant, bystander, "bystander-1")
    assert device_states(plant)["revoked-1"] == "revoked"


def test_revocations_in_one_second_all_count(plant: Plant) -> None:
    names = [f"burst-{number}" for number in range(5)]
    identities = {name: plant.enrol(name) for name in names}
    with plant.operator() as operator:
        for name in names:
            operator.revoke(name)
    assert {name: can_come_in(plant, identity, name) for name, identity in identities.items()} == dict.fromkeys(
        names, False
    )


def test_no_session_ticket_outlives_a_revocation(plant: Plant) -> None:
    """A ticket would open a connection without a look at the certificate."""
    identity = plant.enrol("ticket-1")
    context = ssl.create_default_context(cafile=plant.ca_file)
    context.load_cert_chain(identity.cert_file, identity.key_file)
    packet = b"\x10\x15\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x08ticket-1"

    def connect(session: ssl.SSLSession | None) -> tuple[bytes, ssl.SSLSession | None]:
        address = (HOST, plant.settings.port("mosquitto"))
        with (
            socket.create_connection(address, HANDSHAKE_S) as plain,
            context.wrap_socket(plain, server_hostname=HOST, session=session) as connection,
        ):
            connection.sendall(packet)
            answer = connection.recv(64)
            assert not connection.session_reused
            return answer, connection.session

    answer, session = connect(None)
    assert answer[:1] == b"\x20"
    assert session is None or not session.has_ticket
    with plant.operator() as operator:
        operator.revoke("ticket-1")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(session)


def test_a_revocation_survives_restarts_and_a_wiped_broker(plant: Plant) -> None:
    identity, other = plant.enrol("wiped-1"), plant.enrol("wiped-2")
    with plant.operator() as operator:
        operator.revoke("wiped-1")
    for disturb in (plant.wipe_broker, plant.service.kill, plant.service.start):
        disturb()
        assert not can_come_in(plant, identity, "wiped-1")
        assert can_come_in(plant, other, "wiped-2")
    eventually(lambda: device_states(plant)["wiped-1"] == "revoked", "the service answers again")
    with plant.operator() as operator:
        operator.revoke("wiped-2")
    assert not can_come_in(plant, other, "wiped-2")


def test_a_revocation_that_a_crash_interrupted_is_carried_out_at_the_next_start(plant: Plant) -> None:
    """The registry wants it, no list says so and nobody was cut: what a kill after the first step leaves behind."""
    identity = plant.enrol("crash-1")
    peer = plant.peer("mosquitto", identity, "crash-1")
    assert peer.is_in()
    plant.service.kill()
    registry = Registry(private_dir(plant.folder) / REGISTRY_FILE)
    registry.revoke("crash-1", actor="operator", reason="", now_ms=time_ns() // 1_000_000)
    registry.close()
    assert not peer.gone.is_set()
    plant.service.start()
    eventually(peer.gone.is_set, "the live connection is cut")
    assert not can_come_in(plant, identity, "crash-1")


def test_who_waits_with_the_first_word_through_a_revocation_is_cut_too(plant: Plant) -> None:
    """The handshake was before the revocation, so no list is looked at any more."""
    identity = plant.enrol("waiting-1")
    context = ssl.create_default_context(cafile=plant.ca_file)
    context.load_cert_chain(identity.cert_file, identity.key_file)
    address = (HOST, plant.settings.port("mosquitto"))
    with (
        socket.create_connection(address, HANDSHAKE_S) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as connection,
    ):
        began_s = monotonic()
        with plant.operator() as operator:
            operator.revoke("waiting-1")
        connection.sendall(b"\x10\x16\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x09waiting-1")
        connection.settimeout(HANDSHAKE_S)
        said = b""
        while chunk := connection.recv(64):  # it is let in, and then cut
            said += chunk
        assert said[:1] == b"\x20"
        assert monotonic() - began_s < HANDSHAKE_S


def test_a_revoked_device_comes_back_by_a_new_invitation_only(plant: Plant) -> None:
    invitation = plant.invite("back-1")
    identity = enrol(invitation, plant.identity("back-1"))
    with plant.operator() as operator:
        operator.revoke("back-1")
    with pytest.raises(OperatorRefusedError, match="invite it again after"):
        plant.invite("back-1")

    def invited() -> Invitation | None:
        try:
            return plant.invite("back-1")
        except OperatorRefusedError:
            return None

    again = eventually(invited, "the old connections are gone for sure")
    with pytest.raises(InvitationError, match="no invitation that this token opens"):
        enrol(invitation, plant.identity("back-1-again"))
    fresh = enrol(again, plant.identity("back-1-fresh"))
    assert can_come_in(plant, fresh, "back-1")
    assert not can_come_in(plant, identity, "back-1")


def test_a_replaced_tablet_puts_the_old_one_out(plant: Plant) -> None:
    old = plant.enrol("tablet-1")
    peer = plant.peer("mosquitto", old, "tablet-1")
    assert peer.is_in()
    new = enrol(plant.invite("tablet-1"), plant.identity("tablet-1-new"))
    eventually(peer.gone.is_set, "the old tablet is cut")
    eventually(lambda: not can_come_in(plant, old, "tablet-1"), "the old tablet stays out")
    eventually(lambda: can_come_in(plant, new, "tablet-1"), "the new one is in")


def test_a_gateway_that_is_away_misses_nothing_through_a_revocation(plant: Plant) -> None:
    identity, victim = plant.enrol("steady-1"), plant.enrol("steady-2")
    device = plant.peer("mosquitto", identity, "steady-1")
    assert device.is_in()
    gateway = plant.peer("mosquitto_services", plant.files(GATEWAY_NAME), "fieldlake-gateway-5", keep_session=True)
    assert gateway.is_in()
    gateway.subscribe([topics.up_filter(5)])
    gateway.close()
    device.publish(topics.up(5, "steady-1"), b"before")
    with plant.operator() as operator:
        operator.revoke("steady-2")
    assert not can_come_in(plant, victim, "steady-2")
    device.publish(topics.up(5, "steady-1"), b"after")
    back = plant.peer("mosquitto_services", plant.files(GATEWAY_NAME), "fieldlake-gateway-5", keep_session=True)
    assert back.is_in()
    assert back.session_present
    eventually(lambda: len(back.received) >= 2, "what came meanwhile")
    assert [payload for _, payload in back.received] == [b"before", b"after"]


def test_a_bad_configuration_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"folder": "x"}')
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "gateway.enrolment", "--config", str(file)],
        cwd=repo_root(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "expected an enrolment configuration" in done.stderr

"""Who may do what at the broker, asked of the broker itself, over all pairs of identities and topics."""

from collections.abc import Iterator

import pytest

from contracts import topics
from infra.launcher.certificates import ENROLMENT_NAME, GATEWAY_NAME, LAUNCHER_NAME, OPERATOR_NAME, SERVER_NAME
from tests.enrolment.plant import Peer, Plant
from tests.waiting import eventually

pytestmark = pytest.mark.stack

NOT_AUTHORIZED = 0x87
DEVICES = ("press-01", "press-02", "tablet.3_b", "x", "press-0")
LISTENERS = ("mosquitto", "mosquitto_bootstrap", "mosquitto_services")

Peers = dict[str, Peer]


def topics_of(device: str) -> dict[str, str]:
    """Return every topic that carries a device's name, by what it is for."""
    return {
        "up": topics.up(0, device),
        "up of another shard": topics.up(7, device),
        "state": topics.state(device),
        "renew": topics.renew_request(device),
        "request": topics.enrol_request(device),
        "answer": topics.enrol_answer(device),
        "ack": topics.ack(device),
        "command": f"fl/v1/down/{device}/command",
        "bundle": f"fl/v1/down/{device}/bundle",
        "certificate": topics.certificate(device),
        "pull": topics.pull(device, "0123456789abcdef"),
    }


OF_NOBODY = (
    "fl/v1/up/0", "fl/v1/up", "fl", "other", "$SYS/broker/version", "fl/v1/operator/operator/op-1/request",
    "fl/v1/operator/operator/op-1/answer", "fl/v1/up/0/press-01/more", "fl/v1/state/press-01/more",
)  # fmt: skip
MAY_WRITE = {
    "device": {"up", "up of another shard", "state", "renew"},
    "claim": {"request"},
}
WIDE = ("#", "fl/#", "fl/v1/#", "fl/v1/down/#", "fl/v1/down/+/ack", "fl/v1/up/#", "+/+/+/+/+", "$SYS/#",
        "$share/g/fl/v1/up/#", "$share/g/fl/v1/down/+/ack", "fl/v1/operator/#", "fl/v1/enrol/#")  # fmt: skip


@pytest.fixture(scope="module")
def devices(plant: Plant) -> Peers:
    peers = {name: plant.peer("mosquitto", plant.enrol(name), name) for name in DEVICES}
    assert all(peer.is_in() for peer in peers.values())
    return peers


@pytest.fixture(scope="module")
def gateway(plant: Plant) -> Peer:
    peer = plant.peer("mosquitto_services", plant.files(GATEWAY_NAME), "fieldlake-gateway-9")
    assert peer.is_in()
    return peer


@pytest.fixture
def claim(plant: Plant) -> Iterator[Peer]:
    """A device that is only invited."""
    peer = plant.peer("mosquitto_bootstrap", plant.claim_files(plant.invite("invited-1")), "invited-1")
    assert peer.is_in()
    yield peer
    peer.close()


def test_each_identity_opens_its_own_listener_only(plant: Plant) -> None:
    shown = {
        "mosquitto": plant.enrol("opener-1"),
        "mosquitto_bootstrap": plant.claim_files(plant.invite("opener-2")),
        "mosquitto_services": plant.files(GATEWAY_NAME),
    }
    for own, files in shown.items():
        let_in = {name: plant.peer(name, files, "opener").is_in() for name in LISTENERS}
        assert {name for name, came in let_in.items() if came} == {own}


def test_a_device_publishes_under_its_own_name_only(devices: Peers) -> None:
    for device, peer in devices.items():
        for other in DEVICES:
            for use, topic in topics_of(other).items():
                allowed = other == device and use in MAY_WRITE["device"]
                assert (peer.publish(topic) != NOT_AUTHORIZED) == allowed, f"{device} -> {topic}"
        for topic in OF_NOBODY:
            assert peer.publish(topic) == NOT_AUTHORIZED, f"{device} -> {topic}"


def test_an_invited_device_may_ask_for_its_certificate_and_nothing_else(claim: Peer) -> None:
    for other in ("invited-1", *DEVICES):
        for use, topic in topics_of(other).items():
            allowed = other == "invited-1" and use in MAY_WRITE["claim"]
            assert (claim.publish(topic) != NOT_AUTHORIZED) == allowed, topic
    for topic in OF_NOBODY:
        assert claim.publish(topic) == NOT_AUTHORIZED, topic


def test_a_device_hears_what_is_sent_to_it_and_nothing_else(devices: Peers, gateway: Peer) -> None:
    """Whatever it subscribes to, live or retained: the last message is its own, so all before it have been decided."""
    for device in DEVICES:
        gateway.publish(topics.ack(device), f"retained for {device}".encode(), retain=True)
    for device, peer in devices.items():
        peer.received.clear()
        peer.subscribe([*WIDE, *(topic for other in DEVICES for topic in topics_of(other).values())])
        for other in (*(name for name in DEVICES if name != device), device):
            gateway.publish(topics.ack(other), f"live for {other}".encode())
            gateway.publish(f"fl/v1/down/{other}/command", f"command for {other}".encode())
        devices["press-01"].publish(topics.up(0, "press-01"), b"batch")
        gateway.publish(f"fl/v1/down/{device}/last", b"last")
        eventually(lambda peer=peer: None if not peer.received else peer.received[-1][1] == b"last", f"{device} hears")
        foreign = [topic for topic, _ in peer.received if not topic.startswith(f"fl/v1/down/{device}/")]
        assert foreign == []
        heard = {payload.decode() for _, payload in peer.received}
        assert {f"retained for {device}", f"live for {device}", f"command for {device}"} <= heard


def test_an_invited_device_hears_nothing_of_others(claim: Peer, devices: Peers, gateway: Peer, plant: Plant) -> None:
    claim.subscribe([*WIDE, topics.enrol_answer("invited-1"), topics.ack("press-01")])
    gateway.publish(topics.ack("press-01"), b"not for you", retain=True)
    devices["press-01"].publish(topics.up(0, "press-01"), b"batch")
    claim.publish(topics.enrol_request("invited-1"), b"rubbish")
    eventually(lambda: claim.received or None, "the service answers the rubbish")
    assert {topic for topic, _ in claim.received} == {topics.enrol_answer("invited-1")}


def test_a_will_is_published_under_the_own_name_only(plant: Plant, gateway: Peer) -> None:
    gateway.subscribe(["fl/v1/state/+"])
    gateway.received.clear()
    identity = plant.enrol("willing-1")
    for topic in (topics.state("press-02"), topics.ack("press-02"), topics.state("willing-1")):
        peer = plant.peer("mosquitto", identity, "willing-1", will=topic)
        assert peer.is_in()
        peer.break_off()
    eventually(lambda: (topics.state("willing-1"), b"will") in gateway.received, "its own will")
    assert [entry for entry in gateway.received if entry[1] == b"will"] == [(topics.state("willing-1"), b"will")]


def test_nobody_takes_over_the_session_of_another(plant: Plant, devices: Peers, gateway: Peer) -> None:
    for number, stolen in enumerate(("fieldlake-gateway-9", "press-02", "fieldlake-enrolment")):
        thief = plant.peer("mosquitto", plant.enrol(f"thief-{number}"), stolen, keep_session=True)
        assert thief.is_in()
        assert not thief.session_present
        thief.close()
        files = plant.claim_files(plant.invite(f"claim-{number}"))
        claim = plant.peer("mosquitto_bootstrap", files, stolen, keep_session=True)
        assert claim.is_in()
        assert not claim.session_present
        claim.close()
    assert not gateway.gone.is_set()
    assert not devices["press-02"].gone.is_set()


@pytest.mark.parametrize(
    ("name", "may"),
    [
        (GATEWAY_NAME, {"ack", "command", "bundle"}),
        (LAUNCHER_NAME, set()),
        (SERVER_NAME, set()),
        (OPERATOR_NAME, {"pull", "fl/v1/operator/operator/op-1/request"}),
        (ENROLMENT_NAME, {"answer", "certificate", "fl/v1/operator/operator/op-1/answer"}),
    ],
)
def test_a_service_may_do_what_it_is_for(plant: Plant, name: str, may: set[str]) -> None:
    peer = plant.peer("mosquitto_services", plant.files(name), f"test-{name}")
    assert peer.is_in()
    for use, topic in topics_of("press-01").items():
        assert (peer.publish(topic, b"{}") != NOT_AUTHORIZED) == (use in may), topic
    for topic in OF_NOBODY:
        assert (peer.publish(topic, b"{}") != NOT_AUTHORIZED) == (topic in may), topic


@pytest.mark.parametrize("name", [LAUNCHER_NAME, SERVER_NAME, OPERATOR_NAME, ENROLMENT_NAME])
def test_only_the_gateway_hears_batches(plant: Plant, gateway: Peer, devices: Peers, name: str) -> None:
    peer = plant.peer("mosquitto_services", plant.files(name), f"test-{name}")
    assert peer.is_in()
    peer.subscribe(["#", "fl/v1/up/#"])
    gateway.received.clear()
    gateway.subscribe(["fl/v1/up/#"])
    devices["press-01"].publish(topics.up(0, "press-01"), b"batch")
    eventually(lambda: (topics.up(0, "press-01"), b"batch") in gateway.received, "the gateway hears a batch")
    peer.publish(topics.up(0, "press-01"))  # answered after what came before it was delivered
    assert [topic for topic, _ in peer.received if topic.startswith("fl/v1/up/")] == []

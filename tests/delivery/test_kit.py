"""The kit itself: its findings, its proxy, its broker. Another client (paho) judges the broker."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.core.arrays import ARRAYS
from edge_agent.core.codec.sealing import Sealer
from edge_agent.core.events import Reader
from tests.delivery import small_disk
from tests.delivery.agent import Capability, Receipt
from tests.delivery.case import CannotGoOnError, Case, Finding, Outcome
from tests.delivery.events import events
from tests.delivery.fieldlake import PROBE, FieldlakeLanding, probe_contracts
from tests.delivery.proxy import HOST, ChaosProxy
from tests.delivery.runner import verdicts
from tests.delivery.scripted_broker import ScriptedBroker
from tests.delivery.small_disk import SmallDisk
from tests.waiting import eventually

NONE: frozenset[Capability] = frozenset()


class TestFindings:
    def test_an_assertion_nobody_looked_at_does_not_hold(self) -> None:
        case = Case("s", ("D-001", "D-002"), NONE)
        case.check("D-001", True)
        assert [f.outcome for f in case.findings()] == [Outcome.PASSED, Outcome.FAILED]

    def test_what_an_agent_does_not_offer_is_never_asked(self) -> None:
        case = Case("s", ("D-010",), NONE)
        assert case.check("D-010", lambda: pytest.fail("asked"))
        assert case.until("D-010", lambda: pytest.fail("asked"), "")
        assert [f.outcome for f in case.findings()] == [Outcome.NOT_OFFERED]

    def test_a_failure_stays_and_says_what_was_found(self) -> None:
        case = Case("s", ("D-001",), NONE)
        case.check("D-001", True)
        case.check("D-001", False, lambda: "three missing")
        case.check("D-001", True)
        assert case.findings() == (Finding("D-001", "s", Outcome.FAILED, "three missing"),)

    def test_a_condition_that_is_never_met_fails_at_its_deadline(self) -> None:
        case = Case("s", ("D-001",), NONE)
        assert not case.until("D-001", lambda: False, "nothing came", 0.05)
        assert case.findings()[0].found == "not within 0 s: nothing came"
        with pytest.raises(CannotGoOnError, match="the first step"):
            case.need(lambda: False, "the first step", 0.05)

    def test_an_assertion_that_the_scenario_does_not_name_is_a_mistake(self) -> None:
        with pytest.raises(KeyError, match="D-002"):
            Case("s", ("D-001",), NONE).check("D-002", True)

    def test_the_worst_finding_of_all_scenarios_counts(self) -> None:
        found = [
            Finding("D-001", "a", Outcome.PASSED),
            Finding("D-001", "b", Outcome.FAILED, "x"),
            Finding("D-001", "c", Outcome.NOT_RUN),
            Finding("D-002", "a", Outcome.NOT_RUN),
        ]
        worst = verdicts(found)
        assert (worst["D-001"].outcome, worst["D-002"].outcome) == (Outcome.FAILED, Outcome.NOT_RUN)


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that gives back what it gets; its port."""
    server = socket.create_server((HOST, 0))

    def serve(peer: socket.socket) -> None:
        with peer:
            try:
                while data := peer.recv(1_000):
                    peer.sendall(data)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()


@pytest.fixture
def proxy(echo: int) -> Iterator[ChaosProxy]:
    """A proxy before the echo."""
    proxy = ChaosProxy(echo)
    yield proxy
    proxy.close()


def connect(proxy: ChaosProxy) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), timeout=10)


def is_reset(link: socket.socket) -> bool:
    """Read what is still there; say whether a reset follows, and not an end."""
    try:
        while link.recv(4_000):
            continue
    except ConnectionResetError:
        return True
    return False


class TestProxy:
    def test_moves_bytes_and_ends_with_both_ends(self, proxy: ChaosProxy) -> None:
        with connect(proxy) as link:
            link.sendall(b"there and back")
            assert link.recv(100) == b"there and back"
            link.shutdown(socket.SHUT_WR)
            assert link.recv(100) == b""
        assert proxy.bytes_up == 14

    def test_a_cut_is_a_reset(self, proxy: ChaosProxy) -> None:
        with connect(proxy) as link:
            link.sendall(b"x")
            assert link.recv(1) == b"x"
            proxy.cut()
            assert is_reset(link)

    def test_a_cut_after_some_bytes_lets_exactly_these_through(self, proxy: ChaosProxy) -> None:
        with connect(proxy) as link:
            proxy.cut_after(1_000)
            link.sendall(bytes(2_000))
            eventually(proxy.has_cut, "the cut is made")
            assert is_reset(link)

    def test_a_stalled_link_stays_open_and_silent_while_a_new_one_works(self, proxy: ChaosProxy) -> None:
        with connect(proxy) as old, connect(proxy) as witness:
            old.sendall(b"x")
            assert old.recv(1) == b"x"
            witness.sendall(b"x")
            assert witness.recv(1) == b"x"
            proxy.stall()
            old.sendall(b"y")
            old.settimeout(0.1)
            with pytest.raises(TimeoutError):
                old.recv(1)
            with connect(proxy) as new:
                new.sendall(b"z")
                assert new.recv(1) == b"z"

    def test_hanging_up_is_counted_and_ends_with_flow(self, proxy: ChaosProxy) -> None:
        proxy.hang_up()
        try:
            with connect(proxy) as link:
                assert is_reset(link)
        except ConnectionResetError:
            assert proxy.attempts_s  # it was so quick that connecting itself failed
        eventually(lambda: len(proxy.attempts_s) == 1, "the attempt is counted")
        proxy.flow()
        with connect(proxy) as link:
            link.sendall(b"x")
            assert link.recv(1) == b"x"

    def test_swallowing_takes_connections_and_says_nothing(self, proxy: ChaosProxy) -> None:
        proxy.swallow()
        with connect(proxy) as link:
            link.sendall(b"x")
            link.settimeout(0.1)
            with pytest.raises(TimeoutError):
                link.recv(1)


@pytest.fixture
def heard() -> list[tuple[str, bytes]]:
    """What the scripted broker was told."""
    return []


@pytest.fixture
def broker(heard: list[tuple[str, bytes]]) -> Iterator[ScriptedBroker]:
    """A scripted broker without TLS."""
    broker = ScriptedBroker(lambda topic, payload: heard.append((topic, payload)))
    broker.start(None)
    yield broker
    broker.close()


class Judge:
    """A paho client and what it was answered."""

    def __init__(self, broker: ScriptedBroker) -> None:
        self.answers: dict[int, int] = {}
        self.messages: list[tuple[str, bytes]] = []
        self.connected: list[tuple[int, Any]] = []
        self.subscribed: list[int] = []
        self.client = Client(CallbackAPIVersion.VERSION2, client_id="judge", protocol=MQTTv5)
        self.client.on_connect = lambda _c, _u, _f, reason, properties: self.connected.append(
            (reason.value, properties)
        )
        self.client.on_publish = lambda _c, _u, mid, reason, _p: self.answers.update({mid: reason.value})
        self.client.on_subscribe = lambda _c, _u, _m, reasons, _p: self.subscribed.extend(r.value for r in reasons)
        self.client.on_message = lambda _c, _u, message: self.messages.append((message.topic, bytes(message.payload)))
        self.client.connect(HOST, broker.port)
        self.client.loop_start()
        eventually(lambda: bool(self.connected), "the broker answers")

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class TestScriptedBroker:
    def test_another_client_understands_it(self, broker: ScriptedBroker, heard: list[tuple[str, bytes]]) -> None:
        broker.receive_maximum, broker.maximum_packet_bytes = 7, 5_000
        broker.send("fl/v1/down/judge/ack", b"kept")
        judge = Judge(broker)
        code, properties = judge.connected[0]
        assert (code, properties.ReceiveMaximum, properties.MaximumPacketSize) == (0, 7, 5_000)
        judge.client.subscribe("fl/v1/down/judge/ack", qos=1)
        eventually(lambda: judge.messages == [("fl/v1/down/judge/ack", b"kept")], "what was retained comes")
        broker.send("fl/v1/down/judge/ack", "新".encode() * 100)
        eventually(lambda: len(judge.messages) == 2, "what is sent comes")
        assert judge.subscribed == [1]
        message = judge.client.publish("fl/v1/up/0/judge", b"x" * 300, qos=1).mid
        eventually(lambda: judge.answers == {message: 0}, "the publish is answered")
        assert heard == [("fl/v1/up/0/judge", b"x" * 300)]
        judge.close()

    def test_answers_with_the_code_it_is_told_and_tells_nobody(
        self, broker: ScriptedBroker, heard: list[tuple[str, bytes]]
    ) -> None:
        broker.answer = lambda publish: 0x97
        judge = Judge(broker)
        message = judge.client.publish("fl/v1/up/0/judge", b"x", qos=1).mid
        eventually(lambda: judge.answers == {message: 0x97}, "the publish is answered")
        assert heard == []
        judge.close()

    def test_owes_answers_and_settles_them(self, broker: ScriptedBroker, heard: list[tuple[str, bytes]]) -> None:
        broker.answer = lambda publish: None
        judge = Judge(broker)
        messages = {judge.client.publish("fl/v1/up/0/judge", b"x", qos=1).mid for _ in range(3)}
        eventually(lambda: broker.unanswered_max == 3, "three are open")
        assert (judge.answers, heard) == ({}, [])
        broker.settle()
        eventually(lambda: judge.answers.keys() == messages, "all are answered")
        assert heard == [("fl/v1/up/0/judge", b"x")] * 3
        judge.close()

    def test_refuses_a_connection_with_the_code_it_is_told(self, broker: ScriptedBroker) -> None:
        broker.connect_code = 0x88
        judge = Judge(broker)
        assert judge.connected[0][0] == 0x88
        judge.close()

    def test_a_tls_record_is_no_connect(self, broker: ScriptedBroker) -> None:
        with socket.create_connection((HOST, broker.port), timeout=10) as link:
            link.sendall(b"\x16\x03\x01" + bytes(100))
            assert link.recv(10) == b""
        assert broker.hellos == 0


def batch(first: int, end: int, other: int = 0) -> bytes:
    contract = probe_contracts()[PROBE]
    checked = Reader(contract, ARRAYS).read(first, events(first + other, end + other))
    (sealed,) = Sealer(contract, 7).seal(first, end, checked.events.seqs, checked.events.columns, 0)
    return sealed.data


class TestFieldlakeLanding:
    def test_events_land_once_and_are_receipted(self) -> None:
        landing = FieldlakeLanding("device-1")
        for data in (batch(0, 10), batch(0, 10), batch(10, 12)):
            landing.take(data)
        assert [entry.number for entry in landing.events()] == list(range(12))
        assert (landing.packets(), landing.repeats(), landing.epoch(), landing.faults) == (3, 1, 7, [])
        topic, document = landing.receipt()
        assert topic == "fl/v1/down/device-1/ack"
        assert b"[[0,12]]" in document

    def test_breaches_of_identity_are_faults(self) -> None:
        landing = FieldlakeLanding("device-1")
        landing.take(batch(0, 10))
        landing.take(batch(5, 15))  # overlaps without being the same
        assert len(landing.faults) == 1
        landing.take(batch(0, 10, other=20))  # the same numbers for other rows
        landing.take(b"no batch")
        assert len(landing.faults) == 3

    @pytest.mark.parametrize("kind", [kind for kind in Receipt if kind is not Receipt.OWN])
    def test_every_receipt_can_be_written(self, kind: Receipt) -> None:
        landing = FieldlakeLanding("device-1")
        landing.take(batch(0, 10))
        _, document = landing.receipt(kind)
        assert document != landing.receipt()[1]


@pytest.mark.skipif(not small_disk.is_possible(), reason="unshare and nsenter are not there")
def test_a_small_disk_fills_and_is_gone_with_its_holder(tmp_path: Path) -> None:
    try:
        disk = SmallDisk(tmp_path / "disk")
    except OSError as error:
        pytest.skip(str(error))
    try:
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            (disk.seen / "more").write_bytes(bytes(8_192))
        disk.free()
        (disk.seen / "small").write_bytes(bytes(8_192))
        assert list((tmp_path / "disk").iterdir()) == []
    finally:
        disk.close()
    assert not disk.seen.exists()


@pytest.mark.skipif(not small_disk.is_possible(), reason="unshare and nsenter are not there")
def test_a_command_on_a_small_disk_begins_in_the_repository(tmp_path: Path) -> None:
    try:
        disk = SmallDisk(tmp_path / "disk")
    except OSError as error:
        pytest.skip(str(error))
    try:
        said = subprocess.run([*disk.enter, "pwd"], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
        assert said == f"{small_disk.ROOT}\n"
    finally:
        disk.close()

"""Topics of a broker on the device's own network, by paho: PUBACK goes out when the agent has settled a message.

The broker keeps the session of the agent's client id while the agent is away, and sends again what was not
acknowledged. A message above `PACKET_BYTES_MAX` is never sent to us: the standard has the broker drop it.
"""

import contextlib
import logging
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage, MQTTv5, topic_matches_sub
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.adapters.secret_files import read_secret
from edge_agent.config import MqttSource
from edge_agent.core.sources.deliveries import Message, Numbering, Round, round_of
from edge_agent.core.sources.offers import Offered, Outcome, Settled, SourceFailed
from edge_agent.core.sources.pacing import connect_pause_s
from edge_agent.errors import SourceError
from edge_agent.ports import Put

KEEPALIVE_S: Final = 30  # s; half a minute after a broker fell silent its messages are asked for anew
CONNECT_TIMEOUT_S: Final = 5.0  # s; for TCP and TLS each
SESSION_EXPIRY_S: Final = 604_800  # s; a week, as long as a device may lie switched off and lose nothing
UNANSWERED_MAX: Final = 1_000  # messages that the broker may have under way; one flush of 200 ms at 5,000 messages/s
BYTES_MAX: Final = 2_097_152  # bytes of messages held; beyond, the connection is not read
MESSAGE_BYTES: Final = 512  # bytes that a message takes beside its payload: topic, numbers, objects
PACKET_BYTES_MAX: Final = 1_048_576  # bytes; room for a message of JSON lines, and half of what may be held
LOOK_S: Final = 1.0  # s; how often the client may send a ping

_log = logging.getLogger(__name__)


class MqttReceiver:
    """Implements `ports.PushSource`: one thread that alone touches the client.

    Raises SourceError for bad certificates or a bad password file.
    """

    def __init__(self, config: MqttSource, put: Put, random: Callable[[], float]) -> None:
        self.name = config.name
        self.trouble: str | None = None
        self._config = config
        self._put = put
        self._random = random
        self._numbering = [
            Numbering(s.number_field, s.producer_field) if s.number_field is not None else None
            for s in config.subscriptions
        ]
        self._tls = _tls(config)
        self._password = _password(config)
        self._answers: deque[tuple[int, Settled]] = deque()
        self._wake, self._woken = socket.socketpair()
        self._waiting: list[Message] = []
        self._round: Round | None = None
        self._places: dict[int, int] = {}  # ticket -> place in the round
        self._packets: dict[int, tuple[int, int]] = {}  # handle -> packet identifier and QoS, of this connection alone
        self._next_handle = self._next_ticket = 0
        self._held_bytes = self._round_bytes = 0
        self._is_taken = False  # the broker took this connection, and the agent all that came with it
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=config.name, daemon=True)
        for sock in (self._wake, self._woken):
            sock.setblocking(False)

    def start(self) -> None:
        """Begin to connect, and go on for as long as it takes."""
        self._thread.start()

    def settle(self, ticket: int, settled: Settled) -> None:
        """Tell what became of an offer; any thread may."""
        self._answers.append((ticket, settled))
        self._ring()

    def close(self) -> None:
        """Leave the broker; what was not acknowledged waits there."""
        self._stopping = True
        self._ring()
        if self._thread.ident is not None:
            self._thread.join()
        self._wake.close()
        self._woken.close()

    def _ring(self) -> None:
        # A full pipe has woken the thread already; a closed one has nobody to wake.
        with contextlib.suppress(OSError):
            self._wake.send(b"\0")

    def _run(self) -> None:
        failures = 0
        try:
            while not self._stopping:
                self._connect()
                failures = 0 if self._is_taken else failures + 1
                self._pause(connect_pause_s(failures, self._random))
        except Exception as error:  # noqa: BLE001 - a source that ended in silence would lose events for ever
            _log.exception("source %s", self.name)
            self._put(SourceFailed(self.name, f"source {self.name} stopped: {error!r}: restart the agent"))

    def _pause(self, pause_s: float) -> None:
        """Wait before connecting again, and hear answers meanwhile."""
        until_s = time.monotonic() + pause_s
        while not self._stopping and (left_s := until_s - time.monotonic()) > 0:
            self._hear(select.select([self._woken], [], [], left_s)[0])
            self._settle_all(None)

    def _connect(self) -> None:
        """Hold one connection to its end."""
        client = self._new_client()
        self._is_taken = False
        self._packets.clear()
        # What was not acknowledged on the last connection comes again on this one.
        self._held_bytes = self._round_bytes
        self._waiting.clear()
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.ReceiveMaximum = UNANSWERED_MAX
        properties.MaximumPacketSize = PACKET_BYTES_MAX
        host, port = self._config.host, self._config.port
        try:
            client.connect(host, port, keepalive=KEEPALIVE_S, clean_start=False, properties=properties)
        except OSError as error:
            self._say(f"source {self.name}: broker {host}:{port}: {error}")
            return
        while not self._stopping and (sock := client.socket()) is not None:
            self._turn(client, sock)
        self._settle_all(client)  # what was settled before the end: else it would only come again
        client.disconnect()

    def _turn(self, client: Client, sock: Any) -> None:
        """Read what has come, tell the broker what was settled, and offer what waits once no more is to be read."""
        # Brokers need not keep to the receive maximum: mosquitto 2.0 with `max_inflight_messages 0` does not.
        has_room = self._held_bytes < BYTES_MAX and len(self._packets) < UNANSWERED_MAX
        reads = [sock] if has_room else []
        unpacked = bool(reads) and isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        idle = self._round is None and bool(self._waiting)
        ready, writable, _ = select.select(
            [self._woken, *reads], [sock] if client.want_write() else [], [], 0 if unpacked or idle else LOOK_S
        )
        self._hear(ready)
        if sock in ready or unpacked:
            client.loop_read()
        elif idle:
            self._begin_round()
        if writable and client.socket() is not None:
            client.loop_write()
        client.loop_misc()
        self._settle_all(client)

    def _hear(self, ready: Sequence[Any]) -> None:
        if self._woken in ready:
            self._woken.recv(4_096)

    def _settle_all(self, client: Client | None) -> None:
        while self._answers:
            ticket, settled = self._answers.popleft()
            place = self._places.pop(ticket, None)
            if place is None or self._round is None:
                continue
            self._round.answers[place] = settled
            if settled.outcome is Outcome.REFUSED:
                self._say(f"source {self.name}: refused: {settled.reason}")
            if self._round.is_done():
                self._end_round(self._round, client)

    def _new_client(self) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._config.client_id,
            protocol=MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        if self._tls is not None:
            client.tls_set_context(self._tls)
        if self._config.username is not None:
            client.username_pw_set(self._config.username, self._password)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    def _on_connect(self, client: Client, _u: Any, _f: ConnectFlags, reason: ReasonCode, _p: Properties | None) -> None:
        if reason.is_failure:
            self._say(f"source {self.name}: broker refused {self._config.client_id}: {reason}")
            return
        self._is_taken = True
        # A retained message comes with a new subscription only, not once more with every connection.
        options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        client.subscribe([(subscription.topic, options) for subscription in self._config.subscriptions])

    def _on_subscribe(self, _c: Client, _u: Any, _m: int, reasons: list[ReasonCode], _p: Properties | None) -> None:
        refused = [
            f"{subscription.topic}: {reason}"
            for subscription, reason in zip(self._config.subscriptions, reasons, strict=True)
            if reason.is_failure
        ]
        if refused:
            self._say(f"source {self.name}: subscriptions refused: {', '.join(refused)}: let the broker allow them")
        else:
            self.trouble = None

    def _on_message(self, client: Client, _u: Any, message: MQTTMessage) -> None:
        topic = message.topic
        for subscription, numbering in zip(self._config.subscriptions, self._numbering, strict=True):
            if topic_matches_sub(subscription.topic, topic):
                handle, self._next_handle = self._next_handle, self._next_handle + 1
                self._packets[handle] = (message.mid, message.qos)
                found = Message(handle, topic, subscription.contract, bytes(message.payload), numbering)
                self._waiting.append(found)
                self._held_bytes += _cost(found)
                return
        self._say(f"source {self.name}: message on {topic!r}, which is not subscribed to any more: not taken")
        client.ack(message.mid, message.qos)

    def _begin_round(self) -> None:
        """Offer all that waits."""
        messages, self._waiting = self._waiting, []
        self._round_bytes = sum(map(_cost, messages))
        self._round = round_of(messages)
        for place, part in enumerate(self._round.parts):
            ticket, self._next_ticket = self._next_ticket, self._next_ticket + 1
            self._places[ticket] = place
            lines = tuple(part.lines)
            self._put(Offered(self.name, ticket, part.contract, lines, part.producer, part.first_number, gaps=True))

    def _end_round(self, done: Round, client: Client | None) -> None:
        """Acknowledge what was taken; what could not be taken now comes again with another connection."""
        self._round = None
        self._held_bytes -= self._round_bytes
        self._round_bytes = 0
        taken = done.taken()
        for handle in taken:
            packet = self._packets.pop(handle, None)
            if client is not None and packet is not None:
                client.ack(*packet)
        if len(taken) < len(done.handles) and client is not None:
            self._is_taken = False
            client.disconnect()

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            _log.warning("%s", trouble)
        self.trouble = trouble


def _cost(message: Message) -> int:
    return len(message.payload) + MESSAGE_BYTES


def _tls(config: MqttSource) -> ssl.SSLContext | None:
    if config.ca_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.cert_file is not None:
            context.load_cert_chain(config.cert_file, config.key_file)
    except (OSError, ssl.SSLError) as error:
        raise SourceError(
            f"source {config.name}: certificates {config.ca_file}, {config.cert_file}, {config.key_file}: {error}"
        ) from error
    return context


def _password(config: MqttSource) -> str | None:
    if config.password_file is None:
        return None
    return read_secret(Path(config.password_file), bytes_min=1).decode()  # whoever runs the broker chose it

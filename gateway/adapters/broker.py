"""The MQTT side: one session per shard on the broker, driven by one thread.

paho's own network thread is not used. `ack` and `publish` would be callable from any thread, but between the decision
to acknowledge and the packet in paho's queue the connection may be replaced, and the PUBACK then reaches a session in
which its packet identifier means another message. One thread that reads, acknowledges and reconnects cannot do that.
"""

import logging
import select
from typing import Any, Final, Protocol

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from contracts import topics
from contracts.ports import Clock
from gateway.adapters.wake import Bell
from gateway.config import MqttConfig

KEEPALIVE_S: Final = 30
SESSION_EXPIRY_S: Final = 7 * 86_400  # as long as the broker keeps a session of an absent client
RECEIVE_MAX: Final = 2_000  # messages the broker sends ahead of our PUBACKs
CONNECT_TIMEOUT_S: Final = 5.0
SUBSCRIBE_TIMEOUT_S: Final = 10.0  # from the TCP connection to the SUBACK
RECONNECT_FIRST_S: Final = 0.2
RECONNECT_MAX_S: Final = 5.0  # a broker that comes back is found within five seconds
READS_PER_TURN: Final = 64  # packets; bounds how long acknowledgements wait behind reading
ACKS_OUTSTANDING_MAX: Final = 200  # retained documents the broker has not confirmed; bounds paho's own queue

_LOG: Final = logging.getLogger(__name__)


class Listener(Protocol):
    """Who is told what happens on the connection, always on the thread that calls `turn`."""

    def connected(self) -> None:
        """A new connection stands; packet identifiers of older ones are void."""
        ...

    def disconnected(self, why: str) -> None:
        """The connection is gone; it will be tried again."""
        ...

    def message(self, mid: int | None, qos: int, topic: str, payload: bytes) -> None:
        """A message arrived; `mid` is None when the broker waits for no acknowledgement."""
        ...

    def full(self) -> bool:
        """Whether reading must pause."""
        ...


class Broker:
    """The gateway's session on the broker. All methods belong to one thread."""

    def __init__(self, config: MqttConfig, shard: int, listener: Listener, bell: Bell, clock: Clock) -> None:
        self._config, self._shard, self._listener, self._bell, self._clock = config, shard, listener, bell, clock
        self._pause_s = RECONNECT_FIRST_S
        self._retry_at_s = 0.0
        self._opened_s = 0.0
        self._unread_s = 0.0  # when reading was last paused: a SUBACK may wait behind what is not read
        self._open = False
        self._outstanding: set[int] = set()
        self.subscribed = False
        self._client = self._make_client()

    @property
    def acks_free(self) -> int:
        """How many acknowledgement documents may be published now."""
        return ACKS_OUTSTANDING_MAX - len(self._outstanding) if self.subscribed else 0

    def turn(self, timeout_s: float) -> None:
        """Wait at most so long for the broker or the bell, and do what there is to do."""
        now_s = self._clock.monotonic_s()
        paused = self._listener.full()
        # Each connection brings again what was not acknowledged: connecting while that is the whole window would hold
        # it once more, and once more with every connection that ends because nothing of it is read.
        if not self._open and now_s >= self._retry_at_s and not paused:
            self._connect()
        if not self._open:
            self._wait_bell(timeout_s if paused else min(timeout_s, max(0.0, self._retry_at_s - now_s)))
            return
        if paused:
            self._unread_s = now_s
        if not self.subscribed and now_s - max(self._opened_s, self._unread_s) > SUBSCRIBE_TIMEOUT_S:
            self._lost(f"no SUBACK within {SUBSCRIBE_TIMEOUT_S:.0f} s")
            return
        self._exchange(timeout_s)

    def acknowledge(self, mid: int, qos: int) -> None:
        """Queue the PUBACK of a message of the present connection."""
        if self._open:
            self._client.ack(mid, qos)

    def publish_ack(self, origin: str, document: bytes) -> None:
        """Queue an origin's retained acknowledgement document."""
        info = self._client.publish(topics.ack(origin), document, qos=1, retain=True)
        self._outstanding.add(info.mid)

    def close(self) -> None:
        """Send what is queued and leave; the session stays on the broker."""
        if self._open:
            self._open = self.subscribed = False
            self._client.disconnect()
            self._client.loop_write()

    def _make_client(self) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"fieldlake-gateway-{self._shard}",
            protocol=MQTTv5,
            manual_ack=True,
        )
        client.tls_set(ca_certs=self._config.ca_file, certfile=self._config.cert_file, keyfile=self._config.key_file)
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(ACKS_OUTSTANDING_MAX)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        # With a listener for writes paho queues packets instead of writing each at once from inside `ack`.
        client.on_socket_register_write = _leave_writing_to_turn
        return client

    def _connect(self) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.ReceiveMaximum = RECEIVE_MAX
        try:
            self._client.connect(
                self._config.host, self._config.port, KEEPALIVE_S, clean_start=False, properties=properties
            )
        except (OSError, ValueError) as error:  # ssl.CertificateError is a ValueError too
            self._lost(f"{type(error).__name__}: {error}")
            return
        self._open, self._opened_s = True, self._clock.monotonic_s()

    def _exchange(self, timeout_s: float) -> None:
        sock = self._client.socket()
        if sock is None:
            self._lost("the socket is closed")
            return
        reading = not self._listener.full()  # also before the SUBACK: a session's messages come ahead of it
        buffered = reading and _pending(sock) > 0
        readers: list[Any] = [self._bell, sock] if reading else [self._bell]
        writers: list[Any] = [sock] if self._client.want_write() else []
        readable, writable, _ = select.select(readers, writers, [], 0.0 if buffered else timeout_s)
        if self._bell in readable:
            self._bell.answer()
        if buffered or sock in readable:
            self._read(sock)
        if self._open and (writable or self._client.want_write()):
            self._client.loop_write()
        if self._open:
            self._client.loop_misc()

    def _read(self, sock: Any) -> None:
        for _ in range(READS_PER_TURN):
            if self._client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS or not self._open:
                return
            if _pending(sock) == 0 or self._listener.full():
                return

    def _wait_bell(self, timeout_s: float) -> None:
        if select.select([self._bell], [], [], timeout_s)[0]:
            self._bell.answer()

    def _lost(self, why: str) -> None:
        """Count the connection as gone and set when to try again."""
        was_open, self._open, self.subscribed = self._open, False, False
        self._retry_at_s = self._clock.monotonic_s() + self._pause_s
        _LOG.warning(
            "broker_lost address=%s:%d why=%r retry_in_s=%.1f do=%r",
            self._config.host, self._config.port, why, self._pause_s,
            "check that the broker runs and takes the gateway's certificate; devices keep what it did not take",
        )  # fmt: skip
        self._pause_s = min(self._pause_s * 2, RECONNECT_MAX_S)
        if was_open:
            self._listener.disconnected(why)

    def _on_connect(
        self, client: Client, _data: Any, flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            _LOG.error(
                "broker_refused reason=%r do=%r", str(reason), "check the gateway's certificate and the ACL file"
            )
            return  # paho ends the connection, which arrives as a disconnect
        _LOG.info("broker_connected session_present=%s", flags.session_present)
        self._listener.connected()
        # A batch that the broker retained was either taken before or is still in its device's spool.
        options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
        client.subscribe(topics.up_filter(self._shard), options=options)

    def _on_subscribe(
        self, client: Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            _LOG.error(
                "subscription_refused filter=%s reasons=%s do=%r",
                topics.up_filter(self._shard), [str(reason) for reason in reasons],
                "allow the gateway to read this filter in the broker's ACL file",
            )  # fmt: skip
            client.disconnect()
            return
        self.subscribed = True
        self._pause_s = RECONNECT_FIRST_S
        _LOG.info("subscribed filter=%s", topics.up_filter(self._shard))

    def _on_disconnect(
        self, _client: Client, _data: Any, flags: DisconnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if self._open:
            sender = "broker" if flags.is_disconnect_packet_from_server else "connection"
            self._lost(f"{sender}: {reason}")

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError as error:
            topic = repr(error.object)
        mid = message.mid if message.qos > 0 else None
        self._listener.message(mid, message.qos, topic, bytes(message.payload))

    def _on_publish(
        self, _client: Client, _data: Any, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self._outstanding.discard(mid)
        if reason.is_failure:
            _LOG.error(
                "ack_refused mid=%d reason=%r do=%r",
                mid,
                str(reason),
                "allow the gateway to write fl/v1/down/# in the ACL",
            )


def _pending(sock: Any) -> int:
    """Bytes that TLS has decrypted already and that no wait on the socket would show."""
    return int(sock.pending())


def _leave_writing_to_turn(_client: Client, _data: Any, _socket: Any) -> None:
    return None

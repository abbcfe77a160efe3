"""The broker, by paho: one client per connection, so that nothing but the spool remembers what was in flight."""

import queue
import ssl
import threading
from collections.abc import Callable
from typing import Any, Final

import msgspec
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from contracts import topics
from edge_agent.config import MqttConfig
from edge_agent.core.uplink.link import (
    AckArrived,
    Answered,
    BundleAnnounced,
    CertificateArrived,
    LinkDown,
    LinkEvent,
    LinkUp,
    PullArrived,
    Subscribed,
)
from edge_agent.core.uplink.sending import SEND_WINDOW
from edge_agent.errors import ConfigError

KEEPALIVE_S: Final = 15  # s; a link that died in silence is noticed within 1.5 times this
CONNECT_TIMEOUT_S: Final = 5.0  # s; for TCP and TLS each
SESSION_EXPIRY_S: Final = 86_400  # s; commands for a device wait a day at the broker
QUEUE_PUBLISHES: Final = SEND_WINDOW + 2  # publishes in paho: the window, and the state message before and after


class QueueInbox:
    """Implements `ports.Inbox`; anyone may put, from any thread and from a signal handler."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
        self.put = self._queue.put

    def take(self, wait_s: float) -> list[LinkEvent]:
        events: list[LinkEvent] = []
        try:
            if wait_s > 0:
                events.append(self._queue.get(timeout=wait_s))
            while True:
                events.append(self._queue.get_nowait())
        except queue.Empty:
            return events


class MqttUplink:
    """Implements `ports.Uplink`: connects when told to, publishes, puts what it hears into its inbox.

    Raises ConfigError for bad certificates.
    """

    def __init__(
        self,
        config: MqttConfig,
        device: str,
        shard: int,
        inbox: "QueueInbox",
        credentials: Callable[[], tuple[str, str]],
    ) -> None:
        self._config = config
        self._credentials = credentials
        self._device = device
        self._topic = topics.up(shard, device)
        self._ack_topic = topics.ack(device)
        self._certificate_topic = topics.certificate(device)
        self._bundle_topic = topics.bundle(device)
        self._pull_filter = topics.pull_filter(device)
        self._state_topic = topics.state(device)
        self._inbox = inbox
        self._link = 0
        self._client: Client | None = None
        self._starting = threading.Lock()  # held while a connection gets its thread, or is given up before that
        self._context()

    def _context(self) -> ssl.SSLContext:
        """Return what the next connection shows and trusts. Raises ConfigError."""
        cert_file, key_file = self._credentials()
        try:
            context = ssl.create_default_context(cafile=self._config.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_cert_chain(cert_file, key_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"certificates of {self._device}: {self._config.ca_file}, {cert_file}, {key_file}: {error}"
            ) from error
        return context

    @property
    def link(self) -> int:
        """Number of the newest connection; events of older ones say nothing."""
        return self._link

    def connect(self, epoch: int) -> None:
        """Begin a connection in the background; LinkUp or LinkDown follows."""
        self._link += 1
        try:
            client = self._new_client(self._link, epoch)
        except ConfigError as error:
            self._inbox.put(LinkDown(self._link, str(error)))
            return
        self._client = client
        threading.Thread(target=self._connect, args=(client, self._link), name="connect", daemon=True).start()

    def publish(self, batch: bytes) -> int | None:
        """Publish with QoS 1 and return the message id; None when the link has just gone."""
        if self._client is None:
            return None
        info = self._client.publish(self._topic, batch, qos=1)
        return info.mid if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def request_certificate(self, request: bytes) -> None:
        """Publish a request for the next certificate, if there is a link."""
        if self._client is not None and self._client.is_connected():
            self._client.publish(topics.renew_request(self._device), request, qos=1)

    def drop(self) -> None:
        """Break the connection off, without a goodbye."""
        client = self._give_up()
        if client is not None:
            _break_off(client)
            client.loop_stop()

    def close(self, epoch: int) -> None:
        """Say goodbye and end the connection."""
        client = self._give_up()
        self._link += 1
        if client is None:
            return
        if client.is_connected():
            client.publish(self._state_topic, _state(epoch, online=False), qos=0, retain=True)
        client.disconnect()
        client.loop_stop()

    def _connect(self, client: Client, link: int) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        try:
            client.connect(
                self._config.host,
                self._config.port,
                keepalive=KEEPALIVE_S,
                clean_start=link == 1,
                properties=properties,
            )
        except OSError as error:
            refused = isinstance(error, ssl.SSLError)
            self._inbox.put(LinkDown(link, f"{self._config.host}:{self._config.port}: {error}", refused))
            return
        with self._starting:
            if client is self._client:
                client.loop_start()
                return
        _break_off(client)

    def _give_up(self) -> Client | None:
        """Return the client, whose thread either runs or never will."""
        with self._starting:
            client, self._client = self._client, None
        return client

    def _new_client(self, link: int, epoch: int) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2, client_id=self._device, protocol=MQTTv5, reconnect_on_failure=False
        )
        client.tls_set_context(self._context())
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(QUEUE_PUBLISHES)
        client.max_queued_messages_set(QUEUE_PUBLISHES)
        client.will_set(self._state_topic, _state(epoch, online=False), qos=1, retain=True)
        put = self._inbox.put
        connected: list[bool] = []

        def on_connect(
            _c: Client, _u: Any, _f: ConnectFlags, reason: ReasonCode, properties: Properties | None
        ) -> None:
            if reason.is_failure:
                put(LinkDown(link, f"broker refused {self._device}: {reason}", refused=True))
                return
            connected.append(True)
            window = min(SEND_WINDOW, getattr(properties, "ReceiveMaximum", SEND_WINDOW))
            put(LinkUp(link, window, getattr(properties, "MaximumPacketSize", None)))
            heard = (self._ack_topic, self._certificate_topic, self._bundle_topic, self._pull_filter)
            client.subscribe([(topic, 1) for topic in heard])
            client.publish(self._state_topic, _state(epoch, online=True), qos=0, retain=True)

        def on_disconnect(_c: Client, _u: Any, _f: DisconnectFlags, reason: ReasonCode, _p: Properties | None) -> None:
            # With TLS 1.3 a certificate is refused after the handshake, as a connection that ends before its answer.
            put(LinkDown(link, f"connection ended: {reason}", refused=not connected))

        def on_publish(_c: Client, _u: Any, message: int, reason: ReasonCode, _p: Properties) -> None:
            put(Answered(link, message, reason.value))

        def on_subscribe(_c: Client, _u: Any, _m: int, reasons: list[ReasonCode], _p: Properties | None) -> None:
            put(Subscribed(link, reasons[0].value))

        def on_message(_c: Client, _u: Any, message: MQTTMessage) -> None:
            if message.topic == self._certificate_topic:
                put(CertificateArrived(link, bytes(message.payload)))
            elif message.topic == self._bundle_topic:
                put(BundleAnnounced(link, bytes(message.payload)))
            elif (pull_id := topics.pull_of(message.topic, self._device)) is not None:
                put(PullArrived(link, pull_id, bytes(message.payload)))
            else:
                put(AckArrived(link, bytes(message.payload)))

        client.on_connect = on_connect
        client.on_disconnect = on_disconnect
        client.on_publish = on_publish
        client.on_subscribe = on_subscribe
        client.on_message = on_message
        return client


def _break_off(client: Client) -> None:
    sock = client.socket()
    if sock is not None:
        sock.close()


def _state(epoch: int, *, online: bool) -> bytes:
    return msgspec.json.encode({"online": online, "epoch": epoch})

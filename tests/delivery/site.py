"""A place where an agent is tried: an upstream that can be broken, a lake behind it, a link between, papers."""

import contextlib
import shutil
import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import Signals
from typing import Any, Final

from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from contracts import topics
from tests.delivery.agent import Agent, Maker, Place, Receipt
from tests.delivery.case import Case, Scenario, Upstream
from tests.delivery.events import events
from tests.delivery.proxy import ChaosProxy
from tests.delivery.scripted_broker import ScriptedBroker
from tests.delivery.small_disk import SmallDisk
from tests.edge_agent.plant import HOST, Broker, Certificates

DEVICE: Final = "device-1"
SHARD: Final = 0
SESSION_S: Final = 3_600  # s; for how long the broker keeps messages for a consumer that is away


class Consumer:
    """Takes from a mosquitto what devices publish. With a session the broker queues for it while it is away."""

    def __init__(self, broker: Broker, on_message: Callable[[str, bytes], None], *, session: bool = False) -> None:
        cert_file, key_file = broker.certificates.issue("lake")
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="lake", protocol=MQTTv5)
        self._client.tls_set(str(broker.certificates.ca_file), str(cert_file), str(key_file))
        self._client.on_connect = lambda client, *_: client.subscribe(
            [(topics.up_filter(SHARD), SubscribeOptions(1)), (topics.state(DEVICE), SubscribeOptions(1))]
        )
        self._client.on_subscribe = lambda *_: self._subscribed.set()

        def on_mqtt(_client: Client, _data: Any, message: MQTTMessage) -> None:
            on_message(message.topic, bytes(message.payload))

        self._client.on_message = on_mqtt
        self._client.reconnect_delay_set(1, 1)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_S if session else 0
        self._client.connect(HOST, broker.port, clean_start=not session, properties=properties)
        self._client.loop_start()
        assert self._subscribed.wait(20)

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish and retain."""
        self._client.publish(topic, payload, qos=1, retain=True)

    def close(self) -> None:
        """Leave; a session stays."""
        self._client.disconnect()
        self._client.loop_stop()


class Site:
    """Everything that one scenario needs. The agent is installed when it is first asked for."""

    def __init__(self, folder: Path, maker: Maker, scenario: Scenario) -> None:
        self.folder = folder
        self._maker = maker
        self.answers = True  # the lake receipts what it takes
        self.deaf = False  # the lake loses what it is given
        self.heard = 0  # messages that came as far as the lake's door
        self.presence: list[bytes] = []
        self._installed: Agent | None = None
        self._offered = 0
        self._consumer: Consumer | None = None
        self._scripted: ScriptedBroker | None = None
        self._mosquitto: Broker | None = None
        # First of all: where it is not possible nothing else has been begun.
        self.disk = SmallDisk(folder / "disk") if scenario.small_disk else None
        upstream = folder / "upstream"
        upstream.mkdir()
        if scenario.upstream is Upstream.MOSQUITTO:
            self._mosquitto = Broker(upstream, scenario.broker_options)
            self.certificates = self._mosquitto.certificates
            port = self._mosquitto.port
        else:
            self._scripted = ScriptedBroker(self._on_message)
            self.certificates = Certificates(upstream)
            if scenario.opened:
                self._scripted.start(self.tls())
            port = self._scripted.port
        self.proxy = ChaosProxy(port)
        self.place = self._place()
        if self._mosquitto is not None and scenario.opened:
            self.open()

    @property
    def agent(self) -> Agent:
        """The agent, installed as `place` says by now."""
        if self._installed is None:
            self._installed = self._maker.make(self.place)
        return self._installed

    @property
    def mosquitto(self) -> Broker:
        """The real broker of a scenario that has one."""
        assert self._mosquitto is not None
        return self._mosquitto

    @property
    def scripted(self) -> ScriptedBroker:
        """The scripted broker of a scenario that has one."""
        assert self._scripted is not None
        return self._scripted

    def open(self, *, session: bool = False) -> None:
        """Start the real broker and the lake behind it."""
        self.mosquitto.start()
        self.consumer_comes(session=session)

    def consumer_comes(self, *, session: bool = False) -> None:
        """Have the lake take from the broker."""
        self._consumer = Consumer(self.mosquitto, self._on_message, session=session)

    def consumer_leaves(self) -> None:
        """Have the lake go away."""
        assert self._consumer is not None
        self._consumer.close()
        self._consumer = None

    def reconnect(self, case: Case) -> None:
        """Reset the agent's connection and go on when it has made another."""
        seen = len(self.proxy.attempts_s)
        self.proxy.cut()
        case.need(lambda: len(self.proxy.attempts_s) > seen, "it connects again")

    def tls(
        self,
        papers: tuple[Path, Path] | None = None,
        versions: tuple[ssl.TLSVersion, ssl.TLSVersion] = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3),
    ) -> ssl.SSLContext:
        """Return a server's context for certificate and key, its own unless others are given."""
        cert_file, key_file = papers if papers is not None else self.certificates.issue("scripted")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version, context.maximum_version = versions
        context.load_cert_chain(cert_file, key_file)
        return context

    def offer(self, first: int, end: int) -> None:
        """Have the producer offer the kit's events [first, end)."""
        self.offer_lines(events(first, end))

    def offer_lines(self, lines: Sequence[bytes]) -> None:
        """Have the producer offer these."""
        self._offered += len(lines)
        self.agent.offer(lines)

    def is_accepted(self) -> bool:
        """Say whether everything that was offered is acknowledged."""
        return self.agent.accepted() >= self._offered

    def accept(self, case: Case, first: int, end: int) -> None:
        """Offer events and go on when all are acknowledged."""
        self.offer(first, end)
        case.need(self.is_accepted, f"events up to {end} are accepted")

    def is_accounted(self, end: int) -> bool:
        """Say whether the account explains so many events, where the agent gives one: it has no more to say of them."""
        accounts = self.agent.landing.accounts()
        return not accounts or sum(account.count for account in accounts) == end

    def deliver(self, case: Case, first: int, end: int) -> None:
        """Offer events and go on when all have landed."""
        self.offer(first, end)
        case.need(lambda: self.has(first, end), f"events up to {end} arrive")

    def numbers(self) -> list[int]:
        """Return the numbers of the events that have landed, in the order of landing."""
        return [landed.number for landed in self.agent.landing.events()]

    def has(self, first: int, end: int) -> bool:
        """Say whether all events [first, end) have landed."""
        return not self.missing(first, end)

    def each_once(self, case: Case, name: str, end: int) -> None:
        """Check that events [0, end) have landed once each, without a breach of the agent's own identity."""
        faults = self.agent.landing.faults
        case.check(name, not faults, faults[:3])
        numbers = self.numbers()
        case.check(name, sorted(numbers) == list(range(end)), f"{len(numbers)} events landed for {end} offered")

    def missing(self, first: int, end: int) -> list[int]:
        """Return which of [first, end) have not landed."""
        return sorted(set(range(first, end)) - set(self.numbers()))

    def absent(self, first: int, end: int) -> Callable[[], str]:
        """Return a text to be made later: what is missing."""

        def text() -> str:
            gone = self.missing(first, end)
            error = self.agent.status().last_error
            return f"{len(gone)} of {end - first} events missing, from {gone[:3]}; it says {error!r}"

        return text

    def send_receipt(self, kind: Receipt = Receipt.OWN) -> None:
        """Write a receipt to the device."""
        receipt = self.agent.landing.receipt(kind)
        if receipt is None:
            return
        if self._scripted is not None:
            self._scripted.send(*receipt)
        elif self._consumer is not None:
            self._consumer.publish(*receipt)

    def kill(self) -> None:
        """End the agent with kill -9."""
        self.agent.signal(Signals.SIGKILL)
        self.agent.wait(20)

    def stop(self, deadline_s: float = 20) -> int | None:
        """End the agent with SIGTERM; return its exit code, None if it does not end."""
        self.agent.signal(Signals.SIGTERM)
        return self.agent.wait(deadline_s)

    def close(self) -> None:
        """End everything and remove the folder."""
        with contextlib.ExitStack() as last:
            last.callback(shutil.rmtree, self.folder, ignore_errors=True)
            if self.disk is not None:
                last.callback(self.disk.close)
            if self._mosquitto is not None:
                last.callback(self._mosquitto.kill)
            if self._scripted is not None:
                last.callback(self._scripted.close)
            last.callback(self.proxy.close)
            if self._consumer is not None:
                last.callback(self._consumer.close)
            if self._installed is not None:
                last.callback(self._installed.close)

    def _on_message(self, topic: str, payload: bytes) -> None:
        if topic == topics.state(self.place.device):
            self.presence.append(payload)
        if topic != topics.up(SHARD, self.place.device) or self._installed is None:
            return
        self.heard += 1
        if self.deaf:
            return
        self._installed.landing.take(payload)
        if self.answers:
            self.send_receipt()

    def _place(self) -> Place:
        home = self.folder / "device"
        home.mkdir()
        cert_file, key_file = self.certificates.issue(DEVICE)
        durable = home / "durable"
        if self.disk is not None:
            durable = self.disk.path
        else:
            durable.mkdir(mode=0o700)
        return Place(
            folder=home,
            device=DEVICE,
            host=HOST,
            port=self.proxy.port,
            ca_file=self.certificates.ca_file,
            cert_file=cert_file,
            key_file=key_file,
            durable_dir=durable,
            enter=self.disk.enter if self.disk is not None else (),
        )


def begin(site: Site, case: Case, end: int) -> None:
    """Start the agent and go on when its first events have landed."""
    site.offer(0, end)
    site.agent.start()
    case.need(lambda: site.has(0, end), f"the first {end} events arrive")


def lose(site: Site, case: Case, first: int, end: int) -> None:
    """Have events come as far as the lake's door, where they are lost. The lake stays deaf."""
    site.deaf = True
    heard = site.heard
    site.accept(case, first, end)
    case.need(lambda: site.heard > heard, "the events come to the lake's door")

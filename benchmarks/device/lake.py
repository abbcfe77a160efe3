"""The far end of a device's uplink: every batch is counted, held by its range, and acknowledged as the lake does."""

import ssl
import threading
import time
from typing import Any, Final

from msgspec import Struct
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.device.broker import HOST, Broker
from contracts import microbatch, ranges, topics, watermark
from contracts.contract import Contract, fingerprint
from contracts.ranges import RangeSet
from contracts.watermark import AckDocument, Watermark

SHARD: Final = 0
ACK_EVERY_S: Final = 0.25  # s; as often as the lake commits when somebody waits
CONNECTS_WITHIN_S: Final = 10.0


class Arrival(Struct, frozen=True):
    """A batch that came for the first time; `at_s` is Unix time."""

    contract: str
    header: microbatch.Header
    size_bytes: int
    at_s: float


class CountingLake:
    """Takes the batches of one device between `start` and `close`; those of unknown contracts are an error."""

    def __init__(self, broker: Broker, device: str, contracts: tuple[Contract, ...]) -> None:
        self.arrivals: list[Arrival] = []
        self.doubled = 0
        self.first_at = threading.Event()
        self._device = device
        self._names = {fingerprint(contract): contract.id for contract in contracts}
        self._held: dict[tuple[str, int], RangeSet] = {}
        self._lock = threading.Lock()
        self._changed = False
        self._ends = threading.Event()
        self._ready = threading.Event()
        self._client = _client(broker)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_connect = lambda client, *_: client.subscribe(topics.up_filter(SHARD), qos=1)
        self._client.on_message = self._on_message
        self._client.connect(HOST, broker.port)
        self._thread = threading.Thread(target=self._acknowledge, name="lake", daemon=True)

    def start(self) -> "CountingLake":
        """Subscribe; returns itself. Raises TimeoutError."""
        self._client.loop_start()
        if not self._ready.wait(CONNECTS_WITHIN_S):
            raise TimeoutError(f"lake: no subscription at the broker within {CONNECTS_WITHIN_S} s")
        self._thread.start()
        return self

    def close(self) -> None:
        """Leave."""
        self._ends.set()
        self._thread.join()
        self._client.disconnect()
        self._client.loop_stop()

    def rows(self, contract: str) -> int:
        """Return how many rows of a contract are there."""
        return sum(one.header.rows for one in list(self.arrivals) if one.contract == contract)

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        data = bytes(message.payload)
        header, _ = microbatch.parse(data)
        name = self._names[header.fingerprint]
        with self._lock:
            held = self._held.get((name, header.epoch), ())
            if ranges.covers(held, header.first_seq, header.end_seq):
                self.doubled += 1
                return
            self._held[name, header.epoch] = ranges.add(held, header.first_seq, header.end_seq)
            self._changed = True
        self.arrivals.append(Arrival(name, header, len(data), time.time()))
        self.first_at.set()

    def _acknowledge(self) -> None:
        """Publish what is held, each time a while after something came; a device may wait for nothing else."""
        while not self._ends.wait(ACK_EVERY_S):
            with self._lock:
                if not self._changed:
                    continue
                self._changed = False
                held = dict(self._held)
            document = AckDocument(self._device)
            for (name, epoch), committed in held.items():
                document = watermark.advance(document, Watermark(self._device, name, epoch, committed, 1, 0))
            self._client.publish(topics.ack(self._device), watermark.encode(document), qos=1, retain=True)


def _client(broker: Broker) -> Client:
    identity = broker.identity("lake")
    client = Client(CallbackAPIVersion.VERSION2, client_id="lake", protocol=MQTTv5)
    context = ssl.create_default_context(cafile=str(identity.ca_file))
    context.load_cert_chain(identity.cert_file, identity.key_file)
    client.tls_set_context(context)
    return client

"""A load generator with a schedule: one device publishes a small batch at fixed moments, whatever happened before.

Each batch holds three anomalous readings of an asset of its own, so it becomes rows *and* one decision. Its
`sealed_at_ms` is the scheduled moment: a stall of the generator or of anything behind it is part of every latency.
"""

import ssl
import threading
import time
from typing import Final

import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from contracts import microbatch, topics
from contracts.contract import Contract, fingerprint
from contracts.microbatch import Header
from edge_agent.core.codec.payload import PayloadEncoder
from edge_agent.core.events import Column
from infra.fleet.identity import ensure_identity
from infra.launcher.endpoints import Endpoints

ROWS: Final = 3  # readings per batch: what the shipped rule for assets asks for
ROW_PAUSE_US: Final = 1_000_000
SCORE: Final = 1.0
SENSORS: Final = tuple(f"f{n}" for n in range(1, 10))
CONNECT_WITHIN_S: Final = 15.0


class Probe:
    """Publishes `count` batches, one every `interval_ms`, from a thread of its own."""

    def __init__(self, endpoints: Endpoints, contract: Contract, device: str, interval_ms: int, count: int) -> None:
        self.device = device
        self._contract = contract
        self._interval_s = interval_ms / 1_000
        self._count = count
        self._encoder = PayloadEncoder(contract)
        self._epoch = int(time.time())
        self._connected = threading.Event()
        self._client = _client(endpoints, device)
        self._client.on_connect = lambda *_: self._connected.set()
        self._client.connect(endpoints.mqtt.host, endpoints.mqtt.port)
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)
        self.behind_ms_max = 0.0

    def start(self) -> "Probe":
        """Connect and begin; returns itself."""
        self._client.loop_start()
        if not self._connected.wait(CONNECT_WITHIN_S):
            raise TimeoutError(f"probe {self.device}: no connection to the broker within {CONNECT_WITHIN_S} s")
        self._thread.start()
        return self

    def wait(self) -> None:
        """Wait until the last batch is out, then disconnect."""
        self._thread.join()
        self._client.disconnect()
        self._client.loop_stop()

    def asset(self, number: int) -> str:
        """Return the asset of a batch."""
        return f"{self.device}-{self._epoch}-{number}"

    def _run(self) -> None:
        first_s = time.time() + self._interval_s
        pause = threading.Event()
        for number in range(self._count):
            due_s = first_s + number * self._interval_s
            pause.wait(max(0.0, due_s - time.time()))
            self.behind_ms_max = max(self.behind_ms_max, (time.time() - due_s) * 1_000)
            self._client.publish(topics.up(0, self.device), self._batch(number, round(due_s * 1_000)), qos=1)

    def _batch(self, number: int, scheduled_ms: int) -> bytes:
        seqs = np.arange(number * ROWS, (number + 1) * ROWS, dtype=np.int64)
        columns: dict[str, Column] = {
            "asset_id": [self.asset(number)] * ROWS,
            "occurred_at": scheduled_ms * 1_000 + np.arange(ROWS, dtype=np.int64) * ROW_PAUSE_US,
            "score": np.full(ROWS, SCORE, dtype=np.float32),
            "model": ["probe@1"] * ROWS,
            **{name: np.full(ROWS, number % 100, dtype=np.int32) for name in SENSORS},
        }
        payload = self._encoder.encode(seqs, columns)
        header = Header(
            fingerprint=fingerprint(self._contract),
            epoch=self._epoch,
            first_seq=int(seqs[0]),
            span=ROWS,
            rows=ROWS,
            raw_bytes=payload.raw_bytes,
            sealed_at_ms=scheduled_ms,
            codec=payload.codec,
        )
        return microbatch.seal(header, payload.data)


def _client(endpoints: Endpoints, device: str) -> mqtt.Client:
    identity = ensure_identity(endpoints, device)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=device, protocol=mqtt.MQTTv5)
    context = ssl.create_default_context(cafile=endpoints.mqtt.ca_file)
    context.load_cert_chain(identity.cert_file, identity.key_file)
    client.tls_set_context(context)
    return client

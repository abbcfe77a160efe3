"""Devices that publish over MQTT by a schedule, in a process of its own: `python -m benchmarks.lake.publish JOB`.

Batch n is due `n / rate` after the begin, is number `n // devices` of device `n % devices`, and is sealed at the
moment it was due: whatever holds it up from there on is part of its latency. The first line on standard output is the
begin (Unix s), the last one what was done.
"""

import ssl
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import paho.mqtt.client as mqtt
from msgspec import Struct
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.lake.batches import templates
from benchmarks.lake.ground import Ground
from benchmarks.lake.job_process import JobProcess
from benchmarks.lake.send import Sent
from contracts import contract as contracts
from contracts import topics
from contracts.errors import OperatorMustActError
from infra.fleet.identity import ensure_identities
from infra.launcher.endpoints import Endpoints, endpoints_file, read_endpoints

SHARD: Final = 0  # the local stack has one gateway, which owns this shard
CONNECT_WITHIN_S: Final = 30.0
LEAD_S: Final = 1.0
IN_FLIGHT_MAX: Final = 1_000  # unacknowledged messages of one device; what is beyond waits in the client's queue
LAST_WITHIN_S: Final = 30.0


class Job(Struct, frozen=True):
    """How many devices publish, at what rate together, for how long."""

    endpoints_file: str
    contract: bytes
    name: str
    devices: int
    batch_rows: int
    rate_batches_per_s: float
    seconds: float
    epoch: int = 1

    @property
    def batches(self) -> int:
        """Batches of each device."""
        return max(1, round(self.rate_batches_per_s * self.seconds / self.devices))

    @property
    def total(self) -> int:
        """Batches of all devices."""
        return self.batches * self.devices

    def device(self, number: int) -> str:
        """Name of a device."""
        return f"{self.name}-{number}"


def publish(job: Job) -> Sent:
    """Do it in this process; writes the begin to standard output."""
    endpoints = read_endpoints(Path(job.endpoints_file))
    made = templates(contracts.decode(job.contract), job.batches, job.batch_rows)
    names = [job.device(number) for number in range(job.devices)]
    clients = _connect(endpoints, names)
    begin_s = time.time() + LEAD_S
    sys.stdout.write(f"{begin_s}\n")
    sys.stdout.flush()
    pause = threading.Event()
    behind_s, size_bytes = 0.0, 0
    last: list[mqtt.MQTTMessageInfo] = []
    for number in range(job.total):
        due_s = begin_s + number / job.rate_batches_per_s
        if (left_s := due_s - time.time()) > 0:
            pause.wait(left_s)
        behind_s = max(behind_s, time.time() - due_s)
        device = number % job.devices
        batch = made[number // job.devices].stamped(job.epoch, round(due_s * 1_000))
        size_bytes += len(batch)
        last.append(clients[device].publish(topics.up(SHARD, names[device]), batch, qos=1))
        del last[: -job.devices]
    for info in last:
        info.wait_for_publish(LAST_WITHIN_S)
    seconds = time.time() - begin_s
    for client in clients:
        client.disconnect()
        client.loop_stop()
    return Sent(job.total, size_bytes, round(seconds, 3), round(behind_s * 1_000, 1))


def _connect(endpoints: Endpoints, names: Sequence[str]) -> list[mqtt.Client]:
    clients = []
    for name, identity in ensure_identities(endpoints, names).items():
        connected = threading.Event()
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5)
        context = ssl.create_default_context(cafile=endpoints.mqtt.ca_file)
        context.load_cert_chain(identity.cert_file, identity.key_file)
        client.tls_set_context(context)
        client.max_inflight_messages_set(IN_FLIGHT_MAX)
        client.on_connect = lambda *_, up=connected: up.set()
        client.connect(endpoints.mqtt.host, endpoints.mqtt.port)
        client.loop_start()
        if not connected.wait(CONNECT_WITHIN_S):
            raise OperatorMustActError(f"device {name}: no connection to the broker within {CONNECT_WITHIN_S:.0f} s")
        clients.append(client)
    return clients


class Publishing(JobProcess):
    """A job in a process of its own."""

    def __init__(self, place: Ground, job: Job) -> None:
        super().__init__(place, "benchmarks.lake.publish", job.name, job)
        self.job = job

    def begin_s(self) -> float:
        """Return when the first batch is due (Unix s), once all devices are connected."""
        return self.first_number()

    def result(self) -> Sent:
        """Wait for its end and return what was done."""
        return self.done(Sent)


def job_of(
    place: Ground, contract: contracts.Contract, name: str, devices: int, rows: int, rate: float, s: float
) -> Job:
    """Return a job for this stack: `rate` batches/s of `rows` rows, for `s` seconds."""
    path = str(endpoints_file(place.settings))
    return Job(path, contracts.encode(contract), name, devices, rows, rate, s)


def main(arguments: list[str]) -> int:
    """Do the job that a file describes."""
    job = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=Job)
    sys.stdout.write(msgspec.json.encode(publish(job)).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Batches into the log, from a process of its own: `python -m benchmarks.lake.send JOB`, JOB being JSON.

Without a rate as fast as the log takes them; with one by a schedule that waits for nobody: a batch's `sealed_at_ms` is
the moment it was due. The last line on standard output is what was done (`Sent`).
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from confluent_kafka import KafkaError, Message, Producer
from msgspec import Struct

from benchmarks.lake.batches import templates
from benchmarks.lake.ground import Ground
from benchmarks.lake.job_process import JobProcess
from contracts import contract as contracts
from contracts import topics
from contracts.errors import OperatorMustActError

FLUSH_WITHIN_S: Final = 120.0
QUEUE_MESSAGES: Final = 200_000
QUEUE_KIB: Final = 262_144  # KiB the client may hold: a fill is not to wait for single acknowledgements
POLL_EVERY: Final = 256  # messages
WAIT_S: Final = 0.001

Headers = list[tuple[str, str | bytes | None]]
Delivered = Callable[[KafkaError | None, Message], None]


class Job(Struct, frozen=True):
    """Which batches: of each origin `NAME-n` `batches` of `batch_rows` rows from `first_seq` on, one of each in turn.

    `rate_batches_per_s` over all origins; 0: as fast as possible. `begin_s`: Unix time of the first one.
    """

    bootstrap: str
    contract: bytes
    name: str
    origins: int
    batches: int
    batch_rows: int
    first_seq: int = 0
    epoch: int = 1
    rate_batches_per_s: float = 0.0
    begin_s: float = 0.0

    @property
    def events(self) -> int:
        """Events of all batches."""
        return self.origins * self.batches * self.batch_rows

    def origin(self, number: int) -> str:
        """Name of an origin."""
        return f"{self.name}-{number}"


class Sent(Struct, frozen=True):
    """What came of it. `behind_ms_max`: how far the sender itself fell behind its schedule."""

    batches: int
    size_bytes: int
    seconds: float
    behind_ms_max: float


def send(job: Job) -> Sent:
    """Do it in this process. Raises OperatorMustActError when the log refuses a message."""
    made = templates(contracts.decode(job.contract), job.batches, job.batch_rows, job.first_seq)
    names = [job.origin(number) for number in range(job.origins)]
    keys: list[tuple[str, Headers]] = [(name, [(topics.ORIGIN_HEADER, name.encode())]) for name in names]
    refused: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            refused.append(error)

    log = _producer(job.bootstrap)
    begin_s = job.begin_s or time.time()
    pause_s = 1 / job.rate_batches_per_s if job.rate_batches_per_s else 0.0
    count = size_bytes = 0
    behind_s = 0.0
    began_s = time.time()
    for template in made:
        for name, headers in keys:
            due_s = begin_s + count * pause_s if pause_s else time.time()
            while (left_s := due_s - time.time()) > 0:
                log.poll(min(left_s, WAIT_S))
            behind_s = max(behind_s, -left_s)
            batch = template.stamped(job.epoch, round(due_s * 1_000))
            _produce(log, batch, name, headers, delivered)
            count += 1
            size_bytes += len(batch)
            if count % POLL_EVERY == 0:
                log.poll(0)
    waiting = log.flush(FLUSH_WITHIN_S)
    if waiting or refused:
        raise OperatorMustActError(
            f"log: expected it to take {count} batches, {waiting} are open, refused {refused[:3]}"
        )
    return Sent(count, size_bytes, round(time.time() - began_s, 3), round(behind_s * 1_000, 1))


def _produce(log: Producer, batch: bytes, name: str, headers: Headers, delivered: Delivered) -> None:
    while True:
        try:
            log.produce(topics.BATCHES, batch, name, headers=headers, on_delivery=delivered)
            return
        except BufferError:
            log.poll(0.05)


def _producer(bootstrap: str) -> Producer:
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 2,
            "queue.buffering.max.messages": QUEUE_MESSAGES,
            "queue.buffering.max.kbytes": QUEUE_KIB,
            "reconnect.backoff.max.ms": 500,
            "log_level": 0,
        }
    )


class Sending(JobProcess):
    """A job in a process of its own; `result` waits for it."""

    def __init__(self, ground: Ground, job: Job) -> None:
        super().__init__(ground, "benchmarks.lake.send", f"{job.name}-{job.first_seq}-{job.epoch}", job)
        self.job = job

    def result(self) -> Sent:
        """Wait for its end and return what was done. Raises OperatorMustActError with what it said otherwise."""
        return self.done(Sent)


def main(arguments: list[str]) -> int:
    """Do the job that a file describes."""
    job = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=Job)
    sys.stdout.write(msgspec.json.encode(send(job)).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

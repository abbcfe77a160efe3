"""Devices that keep what the lake has not acknowledged: `python -m benchmarks.lake.resend JOB`.

Batches go out by a schedule, some twice, some after later ones, some under other cuts of the same numbers; what no
watermark covers after a while goes out again, as from a spool. Once the stop file is there nothing new is made, and
the process ends when everything is covered. The last line on standard output is the ledger.
"""

import itertools
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Final, Protocol

import msgspec
from confluent_kafka import KafkaException, Producer
from msgspec import Struct

from benchmarks.lake.batches import Template, templates
from benchmarks.lake.ground import Ground
from benchmarks.lake.job_process import JobProcess
from benchmarks.lake.judge import Sent
from benchmarks.lake.marks import Marks
from benchmarks.lake.send import Headers
from contracts import contract as contracts
from contracts import ranges, topics
from contracts.contract import Contract
from contracts.errors import OperatorMustActError
from contracts.ranges import RangeSet

EPOCH: Final = 1
AHEAD: Final = 256  # batches that are made at once
TICK_S: Final = 0.02
RESEND_EVERY_S: Final = 3.0
RESEND_AFTER_S: Final = 15.0  # s; several commits, and a restart of most parts
RESENT_AT_ONCE_MAX: Final = 2_000
DOUBLED: Final = 0.03  # share of batches that go out twice
HELD_BACK: Final = 0.05  # share that goes out after later ones
HELD_BACK_MAX_S: Final = 5.0
RECUT: Final = 0.02  # share of which the neighbour goes along in one batch of twice the rows
QUEUE_MESSAGES: Final = 100_000
DELIVERY_MS: Final = 20_000  # ms after which a message is the spool's again


class Job(Struct, frozen=True):
    """`origins` of each contract, together `batches_per_s` batches of `batch_rows` rows of each contract."""

    bootstrap: str
    contracts: tuple[bytes, ...]
    origins: int
    batches_per_s: float
    batch_rows: int
    seed: int
    stop_file: str
    drain_within_s: float


class Ledger(Struct, frozen=True):
    """What has been made: by contract and origin the number of events, all of them rows of epoch 1 from 0 on."""

    events: dict[str, dict[str, int]]
    batches: int
    resent: int
    doubled: int
    held_back: int
    recut: int

    def sent(self, contract: str) -> Sent:
        """Return the sequence numbers by origin and epoch."""
        return {(origin, EPOCH): ((0, count),) for origin, count in self.events[contract].items() if count}


class _Stream:
    """One contract's events of one origin."""

    def __init__(self, contract: str, origin: str) -> None:
        self.contract, self.origin = contract, origin
        self.end = 0
        self.open: deque[tuple[float, Template]] = deque()  # when it last went out, in the order of their numbers


class Log(Protocol):
    """What takes messages and may lose them."""

    def produce(self, topic: str, value: bytes, key: str, *, headers: Headers) -> None: ...

    def poll(self, timeout_s: float, /) -> int: ...


class Held(Protocol):
    """What knows which ranges are acknowledged, by (origin, contract, epoch)."""

    def held(self) -> Mapping[tuple[str, str, int], RangeSet]: ...


class Devices:
    """All origins of all contracts."""

    def __init__(self, job: Job, marks: Held, log: Log) -> None:
        self._job, self._marks = job, marks
        self._rng = Random(job.seed)
        self._contracts = [contracts.decode(document) for document in job.contracts]
        self._made: dict[tuple[str, int], list[Template]] = {}
        self._streams = [
            _Stream(contract.id, f"chaos-{contract.id.replace('_', '-')}-{number}")
            for number in range(job.origins)
            for contract in self._contracts
        ]
        self._turn = itertools.cycle(self._streams)
        self._late: list[tuple[float, _Stream, Template]] = []
        self._log = log
        self.batches = self.resent = self.doubled = self.held_back = self.recut = 0

    def run(self) -> Ledger:
        """Make batches until told to stop, then wait until the lake has them all."""
        stop = Path(self._job.stop_file)
        pause_s = 1 / (self._job.batches_per_s * len(self._contracts))
        begin_s = time.time()
        resent_s = begin_s
        deadline_s: float | None = None
        while deadline_s is None or not self._is_covered():
            now_s = time.time()
            if deadline_s is None:
                while self.batches * pause_s < now_s - begin_s:
                    self._next(now_s)
                if stop.exists():
                    deadline_s = now_s + self._job.drain_within_s
            elif now_s > deadline_s:
                raise OperatorMustActError(f"chaos: not covered by watermarks: {self._uncovered()}")
            self._let_go(now_s)
            if now_s - resent_s > RESEND_EVERY_S:
                resent_s = now_s
                self._resend(now_s)
            self._log.poll(TICK_S)
        events: dict[str, dict[str, int]] = {contract.id: {} for contract in self._contracts}
        for stream in self._streams:
            events[stream.contract][stream.origin] = stream.end
        return Ledger(events, self.batches, self.resent, self.doubled, self.held_back, self.recut)

    def _next(self, now_s: float) -> None:
        stream = next(self._turn)
        rows, draw = self._job.batch_rows, self._rng.random()
        number = stream.end // rows
        template = self._template(stream.contract, number, rows)
        stream.end += rows
        stream.open.append((now_s, template))
        self.batches += 1
        if draw < HELD_BACK:
            self.held_back += 1
            self._late.append((now_s + self._rng.uniform(0.0, HELD_BACK_MAX_S), stream, template))
            return
        self._send(stream, template)
        if draw > 1 - DOUBLED:
            self.doubled += 1
            self._send(stream, template)
        elif draw > 1 - DOUBLED - RECUT and number % 2:
            self.recut += 1
            self._send(stream, self._template(stream.contract, number // 2, 2 * rows))

    def _let_go(self, now_s: float) -> None:
        due = [one for one in self._late if one[0] <= now_s]
        self._late = [one for one in self._late if one[0] > now_s]
        for _, stream, template in due:
            self._send(stream, template)

    def _resend(self, now_s: float) -> None:
        held = self._marks.held()
        sent = 0
        for stream in self._streams:
            covered = held.get((stream.origin, stream.contract, EPOCH), ranges.EMPTY)
            kept: deque[tuple[float, Template]] = deque()
            for at_s, template in stream.open:
                if ranges.covers(covered, template.first_seq, template.first_seq + template.rows):
                    continue
                if now_s - at_s > RESEND_AFTER_S and sent < RESENT_AT_ONCE_MAX:
                    self._send(stream, template)
                    sent += 1
                    kept.append((now_s, template))
                else:
                    kept.append((at_s, template))
            stream.open = kept
        self.resent += sent

    def _uncovered(self) -> dict[str, int]:
        return {stream.origin: len(stream.open) for stream in self._streams if stream.open}

    def _is_covered(self) -> bool:
        return not self._late and not self._uncovered()

    def _send(self, stream: _Stream, template: Template) -> None:
        headers: Headers = [(topics.ORIGIN_HEADER, stream.origin.encode())]
        batch = template.stamped(EPOCH, round(time.time() * 1_000))
        try:
            self._log.produce(topics.BATCHES, batch, stream.origin, headers=headers)
        except (BufferError, KafkaException):
            return  # The spool has it still.

    def _template(self, contract: str, number: int, rows: int) -> Template:
        made = self._made.setdefault((contract, rows), [])
        while number >= len(made):
            made += templates(self._by_id(contract), AHEAD, rows, len(made) * rows)
        return made[number]

    def _by_id(self, name: str) -> Contract:
        return next(contract for contract in self._contracts if contract.id == name)


def _producer(bootstrap: str) -> Log:
    log: Log = Producer(
        {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "linger.ms": 2,
            "delivery.timeout.ms": DELIVERY_MS,
            "queue.buffering.max.messages": QUEUE_MESSAGES,
            "reconnect.backoff.max.ms": 500,
            "log_level": 0,
        }
    )
    return log


class Resending(JobProcess):
    """The devices as a process of their own."""

    def __init__(self, ground: Ground, job: Job) -> None:
        super().__init__(ground, "benchmarks.lake.resend", "devices", job)
        self._stop = Path(job.stop_file)

    def finish(self) -> Ledger:
        """Let them end and return what they have made. Raises OperatorMustActError when not all is acknowledged."""
        self._stop.touch()
        return self.done(Ledger)


def main(arguments: list[str]) -> int:
    """Be the devices that a file describes."""
    job = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=Job)
    with Marks(job.bootstrap) as marks:
        ledger = Devices(job, marks, _producer(job.bootstrap)).run()
    sys.stdout.write(msgspec.json.encode(ledger).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

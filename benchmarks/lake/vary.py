"""Devices whose contract changes while they send, in a process of its own: `python -m benchmarks.lake.vary JOB`.

Batch n is due `n / rate` after the begin and is number `n // devices` of device `n % devices`. A change is in force for
even devices from its moment on, for odd ones a lag later: two versions are in flight at once, as with any roll-out.
What no watermark covers is sent again. The first line on standard output is the begin (Unix s), the last one what was
done.
"""

import sys
import threading
import time
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
from confluent_kafka import Producer
from msgspec import Struct

from benchmarks.lake.batches import Template, templates
from benchmarks.lake.changes import Change
from benchmarks.lake.ground import Ground
from benchmarks.lake.job_process import JobProcess
from benchmarks.lake.marks import Marks
from benchmarks.lake.send import Sent
from contracts import ranges, topics
from contracts.contract import Contract

EPOCH: Final = 1
LEAD_S: Final = 3.0
OWN_BATCHES: Final = 5  # of a new table
OWN_EVERY_S: Final = 0.2
RESEND_EVERY_S: Final = 5.0
RESEND_AFTER_S: Final = 15.0
TICK_S: Final = 0.01  # s; what is due by then is sent together: a thousand wake-ups a second would take half a core


class Job(Struct, frozen=True):
    """The first version, what becomes of it, and how fast batches come. Times are in s from the begin."""

    bootstrap: str
    start: Contract
    changes: tuple[Change, ...]
    devices: int
    batch_rows: int
    rate_batches_per_s: float
    first_change_s: float
    change_every_s: float
    lag_s: float
    seconds: float
    drain_within_s: float

    @property
    def total(self) -> int:
        """Batches into the table that changes."""
        return round(self.seconds * self.rate_batches_per_s) // self.devices * self.devices

    def device(self, number: int) -> str:
        """Name of a device."""
        return f"changing-{number}"

    def own_device(self, change: Change) -> str:
        """Name of the device that fills a new table."""
        return f"new-table-{change.number}"

    def due_s(self, change: Change) -> float:
        """When the first batch under a change is due."""
        return self.first_change_s + (change.number - 1) * self.change_every_s

    def versions(self) -> npt.NDArray[np.int64]:
        """Return for every batch which change it is made under; 0 is the first version."""
        numbers = np.arange(self.total)
        passed_s = numbers / self.rate_batches_per_s - self.lag_s * (numbers % self.devices % 2)
        due = np.floor((passed_s - self.first_change_s) / self.change_every_s + 1e-9).astype(np.int64) + 1
        due = np.clip(due, 0, len(self.changes))
        # A new table changes nothing about the other: the version before goes on.
        follows = [0]
        for change in self.changes:
            follows.append(follows[-1] if change.kind == "table" else change.number)
        return np.array(follows, dtype=np.int64)[due]

    def contract(self, version: int) -> Contract:
        """Return the contract of a version."""
        return self.start if version == 0 else self.changes[version - 1].contract


def run(job: Job) -> Sent:
    """Be the devices; writes the begin to standard output."""
    versions = job.versions()
    made = _made(job, versions)
    own = {
        change.number: templates(change.contract, OWN_BATCHES, job.batch_rows)
        for change in job.changes
        if change.kind == "table"
    }
    log = Producer({"bootstrap.servers": job.bootstrap, "acks": "all", "linger.ms": 5, "log_level": 0})

    def send(origin: str, template: Template, at_s: float) -> None:
        batch = template.stamped(EPOCH, round(at_s * 1_000))
        log.produce(topics.BATCHES, batch, origin, headers=[(topics.ORIGIN_HEADER, origin.encode())])

    begin_s = time.time() + LEAD_S
    sys.stdout.write(f"{begin_s}\n")
    sys.stdout.flush()
    due_own = sorted(
        (job.due_s(change) + place * OWN_EVERY_S, change, place)
        for change in job.changes
        if change.kind == "table"
        for place in range(OWN_BATCHES)
    )
    behind_s, resent_s, sent_own = 0.0, begin_s, 0
    pause = threading.Event()
    with Marks(job.bootstrap) as marks:
        for number in range(job.total):
            due_s = begin_s + number / job.rate_batches_per_s
            if (left_s := due_s - time.time()) > 0:
                log.poll(0)
                pause.wait(left_s + TICK_S)
            behind_s = max(behind_s, time.time() - due_s)
            device, at = number % job.devices, number // job.devices
            send(job.device(device), made[int(versions[number])][at], due_s)
            while sent_own < len(due_own) and due_own[sent_own][0] <= due_s - begin_s:
                _, change, place = due_own[sent_own]
                send(job.own_device(change), own[change.number][place], due_s)
                sent_own += 1
            if due_s - resent_s > RESEND_EVERY_S:
                resent_s = due_s
                old = int((due_s - begin_s - RESEND_AFTER_S) * job.rate_batches_per_s) // job.devices
                for device, at in _uncovered(job, marks, old):
                    send(job.device(device), made[int(versions[at * job.devices + device])][at], time.time())
        for change in job.changes:
            for place in range(OWN_BATCHES if change.kind == "table" else 0):
                send(job.own_device(change), own[change.number][place], time.time())
        deadline_s = time.time() + job.drain_within_s
        while missing := _uncovered(job, marks, job.total // job.devices):
            if time.time() > deadline_s:
                break  # The judge counts what is lost.
            if time.time() - resent_s > RESEND_EVERY_S:
                resent_s = time.time()
                for device, at in missing:
                    send(job.device(device), made[int(versions[at * job.devices + device])][at], time.time())
            log.poll(0.1)
    log.flush()
    return Sent(job.total, 0, round(time.time() - begin_s, 2), round(behind_s * 1_000, 1))


def _made(job: Job, versions: npt.NDArray[np.int64]) -> dict[int, dict[int, Template]]:
    """Return templates by version and a device's own number; devices share them."""
    at = np.arange(job.total) // job.devices
    found: dict[int, dict[int, Template]] = {}
    for version in np.unique(versions).tolist():
        places = at[versions == version]
        first, count = int(places.min()), int(places.max() - places.min()) + 1
        made = templates(job.contract(version), count, job.batch_rows, first * job.batch_rows)
        found[version] = dict(enumerate(made, first))
    return found


def _uncovered(job: Job, marks: Marks, end: int) -> list[tuple[int, int]]:
    """Return (device, its own number) of batches before a number that no watermark covers."""
    held, rows = marks.held(), job.batch_rows
    found = []
    for device in range(job.devices):
        covered = held.get((job.device(device), job.start.id, EPOCH), ranges.EMPTY)
        for first, past in ranges.missing(covered, 0, max(0, end) * rows):
            found += [(device, at) for at in range(first // rows, -(-past // rows))]
    return found


class Varying(JobProcess):
    """The devices as a process of their own."""

    def __init__(self, place: Ground, job: Job) -> None:
        super().__init__(place, "benchmarks.lake.vary", "devices", job)

    def begin_s(self) -> float:
        """Return when the first batch is due (Unix s)."""
        return self.first_number()

    def result(self) -> Sent:
        """Wait for its end and return what was done."""
        return self.done(Sent)


def main(arguments: list[str]) -> int:
    """Be the devices that a file describes."""
    job = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=Job)
    sys.stdout.write(msgspec.json.encode(run(job)).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

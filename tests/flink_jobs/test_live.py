"""Preselector and job on a real log and a real cluster. Every test has a rule, an event name and users of its own."""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Final

import psutil
import pytest
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition
from msgspec.structs import replace

from contracts import contract as contracts
from contracts import decisions, topics
from contracts.decisions import Decision
from contracts.rules import AllOf, Comparison, Condition, Operator, Rule, Scalar, SequenceOf, Step
from flink_jobs.triggers import publish
from infra.launcher.endpoints import Endpoints
from infra.launcher.parts.flink import JOB_MANAGER, TASK_MANAGER
from infra.launcher.parts.services import PRESELECT, READY_FILE, TRIGGER_JOB
from infra.launcher.status import status_of
from tests.flink_jobs.writing import contract_named, micro_batch

pytestmark = pytest.mark.stack

# Generous, as the machine may start other things at the same time; a healthy stack needs a hundredth of it.
DECISION_WITHIN_S: Final = 60.0
RECOVERY_WITHIN_S: Final = 180.0
POLL_S: Final = 0.05
CHECKPOINT_S: Final = 3.0  # three checkpoint intervals: what was sent before lies in a checkpoint then
US_PER_MS: Final = 1_000
ORIGIN: Final = "trigger-test"


class Site:
    """A web site whose visitors act, and a reader of the decisions about them."""

    def __init__(self, bootstrap: str) -> None:
        self.name = f"live-{uuid.uuid4().hex[:12]}"
        self.producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 0})
        self.seen: list[Decision] = []
        self._clicks = contract_named("clicks")
        self._epoch, self._seq = int(time.time()), 0
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": self.name, "enable.auto.commit": False})
        self._consumer.assign([TopicPartition(topics.DECISIONS, 0, OFFSET_END)])
        self._consumer.poll(1.0)
        key = f"contract/{self._clicks.id}/{self._clicks.version}"
        self.producer.produce(topics.CONTRACTS, contracts.encode(self._clicks), key)
        self.producer.flush()

    def rule(self, version: int = 1) -> Rule:
        """Return a rule that wants both of this site's acts of a customer within half an hour."""
        wanted = tuple(
            Condition("clicks", (Comparison("event", "eq", self.name), Comparison("object", "eq", what)))
            for what in ("IP67", "CANopen")
        )
        return Rule(self.name, version, "live test", "us", "customer", AllOf(wanted, 1_800), "intent", "action")

    def act(self, user: str, *objects: str, ago_s: int = 0) -> bytes:
        """Publish one batch in which a user does this site's act to each object, now or before; return its bytes."""
        now_ms = int(time.time() * 1_000)
        rows = [
            {
                "user_id": user,
                "session_id": "s",
                "event": self.name,
                "object": what,
                "occurred_at": (now_ms - ago_s * 1_000) * US_PER_MS + n,
            }
            for n, what in enumerate(objects)
        ]
        batch = micro_batch(self._clicks, rows, first_seq=self._seq, epoch=self._epoch, sealed_at_ms=now_ms)
        self._seq += len(rows)
        self.publish(batch)
        return batch

    def publish(self, batch: bytes) -> None:
        """Put a batch on the log as the gateway does."""
        headers: list[tuple[str, str | bytes | None]] = [(topics.ORIGIN_HEADER, ORIGIN.encode())]
        self.producer.produce(topics.BATCHES, batch, ORIGIN.encode(), headers=headers)
        self.producer.flush()

    def read(self, seconds: float, until: Callable[[Decision], bool] = lambda _: False) -> Decision | None:
        """Collect decisions of this site's rule; return the first that is waited for, None when none came in time."""
        deadline_s = time.monotonic() + seconds
        while time.monotonic() < deadline_s:
            message = self._consumer.poll(POLL_S)
            if message is None or message.error() is not None:
                continue
            decision = decisions.decode(message.value() or b"")
            if decision.rule_id == self.name:
                assert message.key() == decision.subject.encode()
                self.seen.append(decision)
                if until(decision):
                    return decision
        return None

    def until_in_force(self, rule: Rule) -> Decision:
        """Let new users act until one is decided upon by this version of the rule."""
        deadline_s, attempt = time.monotonic() + DECISION_WITHIN_S, 0
        while time.monotonic() < deadline_s:
            attempt += 1
            self.act(f"{self.name}-v{rule.version}-{attempt}", "IP67", "CANopen")
            decision = self.read(0.5, lambda d: d.rule_version == rule.version)
            if decision is not None:
                return decision
        raise AssertionError(f"rule {rule.id} version {rule.version} is not in force after {DECISION_WITHIN_S} s")

    def close(self) -> None:
        """Take the rule out of force."""
        publish.delete(self.name, self.producer)
        self._consumer.close()


@pytest.fixture
def site(stack: Endpoints) -> Iterator[Site]:
    """A site without a rule."""
    made = Site(stack.kafka.bootstrap)
    try:
        yield made
    finally:
        made.close()


def about(user: str) -> Callable[[Decision], bool]:
    return lambda decision: decision.subject == user


def test_a_rule_applied_while_everything_runs_is_in_force_and_a_new_version_starts_afresh(site: Site) -> None:
    publish.apply(site.rule(), site.producer)
    first = site.until_in_force(site.rule())
    assert "IP67" in first.because
    site.act("half", "IP67")
    site.act("marker", "IP67", "CANopen")
    assert site.read(DECISION_WITHIN_S, about("marker")) is not None  # so the first version has seen the half
    publish.apply(site.rule(version=2), site.producer)
    site.until_in_force(site.rule(version=2))
    site.act("half", "CANopen")  # the new version has not seen the other half
    site.act("whole", "CANopen", "IP67")
    assert site.read(DECISION_WITHIN_S, about("whole")) is not None
    assert not [decision for decision in site.seen if decision.subject == "half"]


def test_a_redelivered_batch_makes_no_second_decision(site: Site) -> None:
    publish.apply(site.rule(), site.producer)
    site.until_in_force(site.rule())
    batch = site.act("again", "IP67", "CANopen")
    assert site.read(DECISION_WITHIN_S, about("again")) is not None
    site.publish(batch)
    site.act("marker", "IP67", "CANopen")
    assert site.read(DECISION_WITHIN_S, about("marker")) is not None
    assert len({d.id for d in site.seen if d.subject == "again"}) == 1


def test_a_replay_of_yesterday_is_recorded_and_sets_nothing_off(site: Site) -> None:
    publish.apply(site.rule(), site.producer)
    assert site.until_in_force(site.rule()).standing == "act"
    site.act("yesterday", "IP67", "CANopen", ago_s=86_400)
    decision = site.read(DECISION_WITHIN_S, about("yesterday"))
    assert decision is not None
    assert decision.standing == "late"


def test_a_chain_of_words_is_found_at_once_and_what_must_not_come_between_stops_it(site: Site) -> None:
    ours = Comparison("event", "eq", site.name)

    def named(op: Operator, value: Scalar | tuple[Scalar, ...]) -> Condition:
        return Condition("clicks", (ours, Comparison("object", op, value)))

    unexplained = Step(named("eq", "CANopen"), None, (named("contains_any", ("DRG",)),))
    steps = (Step(named("contains_any", ("ip67", "预算紧张"))), unexplained)
    chain = replace(site.rule(), when=SequenceOf(steps, 1_800))
    publish.apply(chain, site.producer)
    site.until_in_force(chain)  # which says that words nobody had asked for are found
    site.act("explained", "今年预算紧张", "关于 ｄｒｇ 的讲解", "CANopen")
    site.act("backwards", "CANopen", "今年预算紧张")
    site.act("chain", "explained drg", "今年预算紧张", "IP20", "CANopen")
    decision = site.read(DECISION_WITHIN_S, about("chain"))
    assert decision is not None
    assert "one after another" in decision.because
    assert len(decision.events) == len(steps)
    assert {found.subject for found in site.seen} & {"explained", "backwards"} == set()


def test_half_a_match_outlives_a_killed_task_manager_and_ids_stay_unique(site: Site, stack: Endpoints) -> None:
    publish.apply(site.rule(), site.producer)
    site.until_in_force(site.rule())
    site.act("half", "IP67")
    site.read(CHECKPOINT_S)
    users = [f"{site.name}-{n}" for n in range(20)]
    for user in users[:10]:
        site.act(user, "IP67", "CANopen")
    os.kill(java_pid(stack, TASK_MANAGER), 9)
    for user in users[10:]:
        site.act(user, "IP67", "CANopen")
    site.act("half", "CANopen")
    wanted = {*users, "half"}

    def all_decided(_: Decision) -> bool:
        return wanted <= {decision.subject for decision in site.seen}

    assert site.read(RECOVERY_WITHIN_S, all_decided) is not None
    assert len({d.id for d in site.seen if d.subject in wanted}) == len(wanted)


def test_half_a_match_outlives_a_killed_job_manager(site: Site, stack: Endpoints) -> None:
    """The cluster forgets its jobs then; the job that is submitted anew goes on from the last checkpoint."""
    publish.apply(site.rule(), site.producer)
    site.until_in_force(site.rule())
    site.act("half", "IP67")
    site.read(CHECKPOINT_S)
    job_runs = stack.settings().conf_dir / TRIGGER_JOB / READY_FILE
    os.kill(java_pid(stack, JOB_MANAGER), 9)
    wait_until(lambda: not job_runs.exists(), "the job is gone")
    wait_until(job_runs.exists, "the job runs again")
    site.act("half", "CANopen")
    assert site.read(RECOVERY_WITHIN_S, about("half")) is not None


def test_a_killed_preselector_loses_nothing(site: Site, stack: Endpoints) -> None:
    publish.apply(site.rule(), site.producer)
    site.until_in_force(site.rule())
    users = [f"{site.name}-{n}" for n in range(60)]
    for user in users:
        site.act(user, "IP67", "CANopen")
        if user == users[20]:
            os.kill(part_pid(stack, PRESELECT), 9)
    wanted = set(users)

    def all_decided(_: Decision) -> bool:
        return wanted <= {decision.subject for decision in site.seen}

    assert site.read(RECOVERY_WITHIN_S, all_decided) is not None
    assert len({d.id for d in site.seen if d.subject in wanted}) == len(wanted)


def part_pid(stack: Endpoints, name: str) -> int:
    """Return the process id of what the launcher started under this name."""
    (part,) = (part for part in status_of(stack.settings()).parts if part.name == name)
    assert part.pid is not None
    return part.pid


def java_pid(stack: Endpoints, name: str) -> int:
    """Return the process id of a part's Java, wherever it is in the tree of what the launcher started."""
    started = psutil.Process(part_pid(stack, name))
    tree = [started, *started.children(recursive=True)]
    return next(process.pid for process in tree if process.name() == "java")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll until a condition holds; fail with its name when it does not in time."""
    deadline_s = time.monotonic() + RECOVERY_WITHIN_S
    never = threading.Event()
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {RECOVERY_WITHIN_S} s: {what}"
        never.wait(POLL_S)

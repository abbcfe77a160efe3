"""Which acknowledgement documents are due: examples, and a seeded run against a broker that is wiped."""

from random import Random

import pytest

from contracts.watermark import AckDocument, Watermark
from gateway.core.acks import PAUSE_S, AckPlan


def mark(origin: str, end: int, epoch: int = 1) -> Watermark:
    return Watermark(origin, "telemetry", epoch, ((0, end),), end, end)


def test_the_first_watermark_is_due_at_once_and_those_behind_it_after_a_pause() -> None:
    plan = AckPlan()
    assert plan.note(mark("a", 1), 10.0)
    assert plan.take(10.0, 100) == (AckDocument("a", (mark("a", 1),)),)
    plan.note(mark("a", 2), 10.01)
    plan.note(mark("a", 3), 10.02)
    assert plan.take(10.03, 100) == ()
    assert plan.next_due_s() == pytest.approx(10.0 + PAUSE_S)
    assert plan.take(10.0 + PAUSE_S, 100) == (AckDocument("a", (mark("a", 3),)),)
    assert plan.next_due_s() is None


def test_a_watermark_that_says_nothing_new_is_not_published() -> None:
    plan = AckPlan()
    plan.note(mark("a", 5), 0.0)
    plan.take(0.0, 1)
    assert not plan.note(mark("a", 4), 1.0)
    assert plan.take(1.0, 1) == ()


def test_the_limit_leaves_the_rest_for_later_longest_due_first() -> None:
    plan = AckPlan()
    for second, origin in enumerate("cab"):
        plan.note(mark(origin, 1), float(second))
    assert [document.origin for document in plan.take(9.0, 2)] == ["c", "a"]
    assert plan.take(9.0, 0) == ()
    assert [document.origin for document in plan.take(9.0, 2)] == ["b"]


def test_a_new_connection_makes_every_document_due() -> None:
    plan = AckPlan()
    for origin in "ab":
        plan.note(mark(origin, 1), 0.0)
    plan.take(0.0, 9)
    plan.republish(5.0)
    assert {document.origin for document in plan.take(5.0, 9)} == {"a", "b"}
    assert plan.origins == 2


@pytest.mark.parametrize("seed", range(100))
def test_a_broker_ends_with_the_newest_document_of_every_origin(seed: int) -> None:
    rng, plan, now_s = Random(seed), AckPlan(), 0.0
    broker: dict[str, AckDocument] = {}
    newest: dict[str, int] = {}
    last_s: dict[str, float] = {}
    for _ in range(500):
        now_s += rng.random() / 50
        if rng.random() < 0.01:
            broker.clear()
            plan.republish(now_s)
        origin = rng.choice("abcdef")
        end = rng.randint(1, 1_000)
        newest[origin] = max(newest.get(origin, 0), end)
        plan.note(mark(origin, end), now_s)
        for document in plan.take(now_s, rng.randint(0, 3)):
            assert now_s - last_s.get(document.origin, -1.0) >= PAUSE_S - 1e-9, f"seed={seed}"
            last_s[document.origin] = now_s
            broker[document.origin] = document
    while (due_s := plan.next_due_s()) is not None:
        now_s = max(now_s, due_s)
        broker |= {document.origin: document for document in plan.take(now_s, 2)}
    assert {origin: document.watermarks[0].upto for origin, document in broker.items()} == newest, f"seed={seed}"

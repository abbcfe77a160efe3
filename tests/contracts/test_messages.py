"""The other messages: bundles, candidates, decisions, dead letters, topics; and no decoder lets a foreign error out."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import contracts
from contracts import (
    bundle,
    candidates,
    contract,
    crm_change,
    dead,
    decisions,
    odcs,
    releases,
    rules,
    topics,
    watermark,
)
from contracts.bundle import Bundle, Stream, Windows
from contracts.candidates import KEY_SHARDS, Candidates
from contracts.dead import DeadLetter
from contracts.decisions import Decision, EventId
from contracts.errors import ContractError, FieldlakeError, OperatorMustActError

PURCHASES = odcs.contract_of(
    yaml.safe_load((Path(str(contracts.__file__)).parent / "documents" / "purchases.odcs.yaml").read_text())
)
EVENTS = (EventId("clicks", "web-1", 1, 4), EventId("clicks", "web-1", 1, 9))
CANDIDATES = Candidates(
    shard=3, ruleset=12, contract="clicks", contract_version="1.0.0", subject_kind="customer", origin="web-1", epoch=1,
    sealed_at_ms=5, names=("seq", "occurred_at", "user_id"), columns=([1, 2], [10, 20], ["a", None]),
)  # fmt: skip


def decide(**changes: object) -> str:
    known: dict[str, object] = {"tenant": "default", "rule_id": "r", "rule_version": 1, "subject": "s", "match": EVENTS}
    return decisions.decision_id(**(known | changes))  # type: ignore[arg-type]


def test_a_bundle_survives_its_json_form_and_finds_its_parts() -> None:
    stream = Stream("purchases", windows=(Windows("telemetry_windows", 60_000, ("amount",)),))
    found = bundle.decode(bundle.encode(Bundle("7", (PURCHASES,), (stream,))))
    assert found.contract("purchases") == PURCHASES
    assert found.stream("purchases") == stream
    with pytest.raises(ContractError, match="has only purchases"):
        found.contract("clicks")


def test_a_contract_without_a_stream_has_neither_model_nor_windows() -> None:
    assert Bundle("7", (PURCHASES,), ()).stream("purchases") == Stream("purchases")
    with pytest.raises(ContractError):
        Bundle("7", (PURCHASES,), ()).stream("clicks")


def test_candidates_survive_and_show_their_shard_without_the_rest() -> None:
    data = candidates.encode(CANDIDATES)
    assert candidates.decode(data) == CANDIDATES
    assert candidates.shard_in(data) == 3


def test_key_shards_are_pinned() -> None:
    # Keyed state lies under these numbers: another function would part subjects from their state.
    assert {name: candidates.shard_of(name) for name in ("", "a", "customer-17", "Zoë")} == {
        "": 0, "a": 3, "customer-17": 31, "Zoë": 42,
    }  # fmt: skip


@given(st.text())
def test_every_subject_has_a_shard(subject: str) -> None:
    assert 0 <= candidates.shard_of(subject) < KEY_SHARDS


def test_a_decision_id_is_pinned_and_depends_on_everything() -> None:
    assert decide() == "3d3699625b8bb2e70b8e51b4d56082fe"
    changes: list[dict[str, object]] = [
        {"tenant": "other"}, {"rule_id": "q"}, {"rule_version": 2}, {"subject": "t"}, {"match": EVENTS[:1]},
        {"match": EVENTS[::-1]},
    ]  # fmt: skip
    assert len({decide(), *(decide(**change) for change in changes)}) == len(changes) + 1


def test_decisions_and_dead_letters_survive_their_json_form() -> None:
    decision = Decision(decide(), "default", "r", 1, "customer", "s", "intent", "action", 1, 2, 3, EVENTS, "because")
    assert decisions.decode(decisions.encode(decision)) == decision
    letter = DeadLetter("mqtt fl/v1/up/0/d", None, "bad_format", "detail", 4, bytes(range(256)))
    assert dead.decode(dead.encode(letter)) == letter


@given(st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True).filter(topics.is_origin), st.integers(0, 99))
def test_the_origin_is_found_again_in_its_topic(origin: str, shard: int) -> None:
    assert topics.origin_of(topics.up(shard, origin)) == origin


@given(st.text())
def test_only_names_that_are_safe_in_a_topic_are_origins(name: str) -> None:
    if topics.is_origin(name):
        assert not set(name) & set("/+#$\0 ")
        assert name.isascii()
        assert 0 < len(name) <= topics.ORIGIN_CHARS_MAX
    else:
        with pytest.raises(OperatorMustActError):
            topics.ack(name)
        with pytest.raises(OperatorMustActError):
            topics.bundle(name)


def test_topic_names_differ_and_are_ours() -> None:
    names = [topic.name for topic in topics.KAFKA_TOPICS]
    assert len(set(names)) == len(names)
    assert all(name.startswith("fieldlake.") for name in names)


DECODERS: dict[str, Callable[[bytes], object]] = {
    "bundle": bundle.decode,
    "candidates": candidates.decode,
    "shard": candidates.shard_in,
    "contract": contract.decode,
    "CRM change": crm_change.decode,
    "dead": dead.decode,
    "decision": decisions.decode,
    "rule": rules.decode,
    "watermark": watermark.decode_watermark,
    "ack": watermark.decode_ack,
    "announcement": releases.decode,
}
HOSTILE = [
    b"",
    b"null",
    b"{}",
    b"\xff",
    b'{"id":"\xff"}',
    b'{"origin":"\xff"}',
    b'{"x":' + b"[" * 100_000,
    b"\x93\xa1\xff",
]


@pytest.mark.parametrize("name", DECODERS)
def test_hostile_documents_are_refused_with_a_typed_error(name: str) -> None:
    for data in HOSTILE:
        with pytest.raises(FieldlakeError):
            DECODERS[name](data)


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.binary(max_size=100))
def test_no_bytes_make_a_decoder_raise_anything_else(name: str, data: bytes) -> None:
    with contextlib.suppress(FieldlakeError):
        DECODERS[name](data)

"""Ingest with several versions of a contract at once, and with contracts that do not fit."""

from pathlib import Path
from typing import Any

import pytest
import zstandard
from msgspec.structs import replace

from contracts.contract import FIELDS_MAX, Checks, Contract, Conversion, Field, FieldType, check, encode
from contracts.errors import ContractError
from contracts.topics import CONTRACTS as CONTRACTS_TOPIC
from lakehouse.registry import Registry, contract_key
from tests.lakehouse.frames import CONTRACTS, clicks, frame, payload, telemetry
from tests.lakehouse.world import World

CLICKS, TELEMETRY = CONTRACTS["clicks"], CONTRACTS["telemetry"]


def changed(version: str, **names: str) -> Contract:
    """Clicks with some fields renamed, and a field more."""
    fields = tuple(replace(f, name=names.get(f.name, f.name)) for f in CLICKS.fields)
    return replace(CLICKS, version=version, fields=(*fields, Field(90, "campaign", FieldType.STRING)))


def in_ms(version: str, *conversions: Conversion) -> Contract:
    fields = tuple(replace(f, unit="ms", conversions=conversions) if f.name == "dwell_s" else f for f in CLICKS.fields)
    return replace(CLICKS, version=version, fields=fields)


def renamed(rows: list[dict[str, Any]], **names: str) -> list[dict[str, Any]]:
    return [{names.get(name, name): value for name, value in row.items()} for row in rows]


def test_two_versions_at_once_land_in_one_table_by_field(world: World) -> None:
    newer = changed("1.1.0", dwell_s="dwell", platform="object", object="document")
    ingest = world.start()
    world.broker.publish(newer)
    for first in range(0, 20, 4):
        world.broker.batch("old-1", frame(CLICKS, clicks(range(first, first + 4), platform="平板")))
        sent = clicks(range(first, first + 4), platform="平板", campaign="spring")
        names = {"dwell_s": "dwell", "platform": "object", "object": "document"}
        world.broker.batch("new-1", frame(newer, renamed(sent, **names)))
        world.drain(ingest)
    found = world.records("clicks")
    assert len(found) == 40
    assert {(r["contract_version"], r["object"], r["document"], r["campaign"]) for r in found} == {
        ("1.0.0", "平板", "emc-test-report.pdf", None), ("1.1.0", "平板", "emc-test-report.pdf", "spring"),
    }  # fmt: skip
    assert all(r["dwell"] == 1.5 * r["seq"] for r in found)
    assert world.broker.dead() == []


def test_both_versions_in_one_round_are_one_commit(world: World) -> None:
    newer = changed("1.1.0", dwell_s="dwell")
    world.broker.publish(newer)
    world.broker.batch("old-1", frame(CLICKS, clicks(range(3))))
    world.broker.batch("new-1", frame(newer, renamed(clicks(range(3)), dwell_s="dwell")))
    ingest = world.start()
    world.drain(ingest)
    assert ingest.status.commits == {"clicks": 1}
    assert [r["dwell"] for r in world.records("clicks")] == [0.0, 1.5, 3.0] * 2


def test_a_batch_of_an_unpublished_version_waits_and_others_go_on(world: World) -> None:
    newer = changed("1.1.0")
    early = frame(newer, clicks(range(4), campaign="春"))
    ingest = world.start()
    world.broker.batch("new-1", early)
    world.broker.batch("old-1", frame(CLICKS, clicks(range(4))))
    world.drain(ingest)
    assert [letter.reason for letter in world.broker.dead()] == ["unknown_contract"]
    assert set(world.broker.watermarks()) == {("old-1", "clicks")}
    world.broker.publish(newer)
    world.broker.batch("new-1", early)
    world.drain(ingest)
    assert [r["campaign"] for r in world.records("clicks")] == ["春"] * 4 + [None] * 4
    assert world.broker.watermarks()["new-1", "clicks"].upto == 4


def test_what_the_log_has_not_told_of_yet_is_asked_for_when_a_batch_needs_it(world: World) -> None:
    newer = changed("1.1.0")
    samples: list[bytes | bytearray | memoryview] = [payload(CLICKS, clicks(range(n, n + 20))) for n in range(200)]
    dictionary = zstandard.train_dictionary(4_096, samples, dict_id=77)
    ingest = world.start()
    world.drain(ingest)
    world.broker.untold.add(CONTRACTS_TOPIC)
    world.broker.publish(newer)
    world.broker.batch("new-1", frame(newer, clicks(range(4), campaign="春")))
    world.drain(ingest)
    world.broker.publish_dictionary(77, dictionary.as_bytes())
    world.broker.batch("collector-1", frame(CLICKS, clicks(range(20)), dictionary=dictionary))
    world.drain(ingest)
    assert world.broker.dead() == []
    assert len(world.records("clicks")) == 24


def test_a_stricter_version_that_batches_do_not_name_is_in_force_once_it_has_come(world: World) -> None:
    fields = tuple(replace(f, checks=Checks(maximum=2.0)) if f.name == "dwell_s" else f for f in CLICKS.fields)
    ingest = world.start()
    world.drain(ingest)
    world.broker.publish(replace(CLICKS, version="1.1.0", fields=fields))
    world.broker.batch("old-1", frame(CLICKS, clicks(range(4))))
    world.drain(ingest)
    assert [r["dwell_s"] for r in world.records("clicks")] == [0.0, 1.5]


def test_a_lower_version_published_later_changes_nothing_and_its_rows_land(world: World) -> None:
    newer, between = changed("1.2.0", dwell_s="dwell"), changed("1.1.0", dwell_s="stay")
    ingest = world.start()
    world.broker.publish(newer)
    world.drain(ingest)
    world.broker.publish(between)
    world.broker.batch("between-1", frame(between, renamed(clicks(range(3)), dwell_s="stay")))
    world.drain(ingest)
    assert [r["dwell"] for r in world.records("clicks")] == [0.0, 1.5, 3.0]
    successor = world.start()
    world.broker.batch("between-1", frame(between, renamed(clicks(range(3, 5)), dwell_s="stay")))
    world.drain(successor)
    assert [r["dwell"] for r in world.records("clicks")] == [0.0, 1.5, 3.0, 4.5, 6.0]


def test_a_version_that_does_not_fit_its_table_leaves_those_before_it_in_force(world: World) -> None:
    ingest = world.start()
    for refused in (in_ms("2.0.0"), replace(changed("1.1.0"), namespace="elsewhere")):
        world.broker.publish(refused)
        world.broker.batch("old-1", frame(CLICKS, clicks(range(3))))
        world.drain(ingest)
    assert len(world.records("clicks")) == 3
    assert world.broker.watermarks()["old-1", "clicks"].upto == 3


def test_a_conversion_holds_for_rows_that_are_on_their_way(world: World) -> None:
    newer = in_ms("2.0.0", Conversion("s", 1_000.0))
    world.broker.publish(newer)
    world.broker.batch("old-1", frame(CLICKS, clicks([1])))
    world.broker.batch("new-1", frame(newer, clicks([1], dwell_s=7.0)))
    world.drain(world.start())
    assert [(r["dwell_s"], r["dwell_s__v1"]) for r in world.records("clicks")] == [(7.0, None), (1_500.0, 1.5)]


def test_a_unit_is_never_guessed_from_a_fingerprint() -> None:
    registry = Registry()
    with_words, without = in_ms("2.0.0", Conversion("s", 1_000.0)), in_ms("2.1.0")
    for contract in (CLICKS, with_words):
        registry.take(contract_key(contract), encode(contract))
    with pytest.raises(ContractError, match="could not be told from those of 1"):
        registry.take(contract_key(without), encode(without))
    assert registry.newest["clicks"] == with_words
    assert list(registry.fingerprints.values()) == [CLICKS, with_words]


def test_a_withdrawn_version_gives_back_the_fingerprint_that_it_shared() -> None:
    registry = Registry()
    described = replace(CLICKS, version="1.0.1", title="Clicks 点击")
    for contract in (CLICKS, described):
        registry.take(contract_key(contract), encode(contract))
    assert list(registry.fingerprints.values()) == [described]
    registry.withdraw(described)
    assert (list(registry.fingerprints.values()), registry.newest["clicks"]) == ([CLICKS], CLICKS)
    registry.withdraw(CLICKS)
    assert (registry.fingerprints, registry.newest) == ({}, {})


def test_a_contract_of_1500_fields_lands_beside_others(tmp_path: Path) -> None:
    kinds = (FieldType.DOUBLE, FieldType.STRING, FieldType.LONG)
    fields = tuple(Field(at, f"signal_{at}", kinds[at % 3]) for at in range(1_500))
    wide = Contract("wide", "1.0.0", "Wide", "Tests.", "tests", "lake_a", "field", fields, 30)
    values = {FieldType.DOUBLE: 0.5, FieldType.STRING: "信号", FieldType.LONG: 7}
    row = {f.name: values[f.type] for f in fields}
    world = World(tmp_path, ("quarantine", "telemetry"))
    world.broker.publish(wide)
    world.broker.batch("wide-1", frame(wide, [row | {"seq": seq} for seq in range(3)]))
    world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(3))))
    world.drain(world.start())
    found = world.rows(wide).to_pylist()
    assert [{name: r[name] for name in row} for r in found] == [row] * 3
    assert len(world.records("telemetry")) == 3
    world.close()


def test_a_contract_wider_than_that_is_refused_with_its_reason() -> None:
    fields = tuple(Field(at, f"signal_{at}", FieldType.LONG) for at in range(FIELDS_MAX + 1))
    with pytest.raises(ContractError, match=f"expected 1 to {FIELDS_MAX} fields, found {FIELDS_MAX + 1}"):
        check(replace(CLICKS, fields=fields))

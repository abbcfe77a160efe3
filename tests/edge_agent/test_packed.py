"""Packed rows: what the device packs, it and the lake unpack alike; what is broken, both refuse."""

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import packing, unpacking, wire
from contracts.contract import FieldType, fingerprint
from contracts.errors import BatchFormatError, ContractError
from contracts.packing import Plan, Planned, Term
from edge_agent.core.codec.packed import Packer
from lakehouse import packed as lake
from lakehouse.errors import PayloadError
from tests.edge_agent.plant import CONTRACTS
from tests.edge_agent.rows_of_everything import EVERYTHING, ROWS, SEQS, columns_of, same, seqs_of
from tests.edge_agent.test_record_batch import GOLDEN, float32s

COLUMNS = wire.columns(EVERYTHING)
NUMBERS = [at for at, column in enumerate(COLUMNS) if column.type is not FieldType.STRING]


def any_plan(seed: int) -> Plan | None:
    """Return some plan that may be followed: order, differences, terms and known texts at will; None for none."""
    rng = random.Random(seed)
    planned: list[Planned] = []
    before: list[int] = []
    for at in rng.sample(range(len(COLUMNS)), len(COLUMNS)):
        if at not in NUMBERS:
            planned.append(
                Planned(at, texts=tuple(rng.sample(["预算紧张", "a", "", "sample", "\x00"], rng.randint(0, 4))))
            )
            continue
        chosen = rng.sample(before, min(len(before), rng.randint(0, 2)))
        terms = tuple(Term(column, rng.choice((1, -1, 3, 10**9))) for column in chosen)
        planned.append(Planned(at, rng.random() < 0.5, terms, rng.choice((0, 0, 7, -(2**53))), rng.random() < 0.3))
        before.append(at)
    return Plan(fingerprint(EVERYTHING), tuple(planned)) if seed else None


PLANS = st.integers(0, 2**16).map(any_plan)


def dictionary_of(plan: Plan | None) -> bytes:
    return b"" if plan is None else packing.with_plan(b"", plan)


def pack(rows: list[tuple[Any, ...]], seqs: list[int], dictionary: bytes = b"", kind: str = "list") -> bytes:
    packed = Packer(EVERYTHING, dictionary).pack({**columns_of(rows, kind), "seq": seqs}, len(rows))
    assert packed is not None
    return packed


def expected(rows: list[tuple[Any, ...]], seqs: list[int]) -> dict[str, list[Any]]:
    values = {"seq": seqs, **columns_of(rows, "list")}
    return {name: float32s(name, column) for name, column in values.items()}


@settings(deadline=None, max_examples=150)
@given(ROWS, SEQS, PLANS)
def test_the_device_reads_back_what_it_packed(
    rows: list[tuple[Any, ...]], numbers: tuple[int, int], plan: Plan | None
) -> None:
    seqs, dictionary = seqs_of(*numbers, len(rows)), dictionary_of(plan)
    packed = pack(rows, seqs, dictionary)
    assert {pack(rows, seqs, dictionary, kind) for kind in ("numpy", "array")} == {packed}
    found = Packer(EVERYTHING, dictionary).unpack(packed, len(rows))
    wanted = expected(rows, seqs)
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not same(found[name], wanted[name])] == []


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(ROWS.filter(bool), SEQS), min_size=1, max_size=4), PLANS)
def test_the_lake_unpacks_many_batches_at_once(
    batches: list[tuple[list[tuple[Any, ...]], tuple[int, int]]], plan: Plan | None
) -> None:
    dictionary = dictionary_of(plan)
    sent = [(rows, seqs_of(*numbers, len(rows))) for rows, numbers in batches]
    packed = [pack(rows, seqs, dictionary) for rows, seqs in sent]
    table = lake.read(packed, [len(rows) for rows, _ in sent], EVERYTHING, dictionary)
    table.validate(full=True)
    for name in table.column_names:
        wanted = [value for rows, seqs in sent for value in expected(rows, seqs)[name]]
        assert same(table[name].to_pylist(), wanted), name


def outcome(dictionary: bytes, packed: bytes, rows: int) -> tuple[dict[str, list[Any]] | None, dict[str, Any] | None]:
    """Return what the device and the lake read, None where they refuse."""
    try:
        device: dict[str, list[Any]] | None = Packer(EVERYTHING, dictionary).unpack(packed, rows)
    except BatchFormatError:
        device = None
    try:
        there: dict[str, Any] | None = lake.read([packed], [rows], EVERYTHING, dictionary).to_pydict()
    except PayloadError:
        there = None
    return device, there


@settings(deadline=None, max_examples=200)
@given(ROWS.filter(bool), PLANS, st.randoms(use_true_random=False), st.integers(-1, 1))
def test_device_and_lake_agree_on_spoiled_bytes(
    rows: list[tuple[Any, ...]], plan: Plan | None, rng: random.Random, more: int
) -> None:
    dictionary = dictionary_of(plan)
    packed = bytearray(pack(rows, seqs_of(5, 2, len(rows)), dictionary))
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(packed) + 1)
        match rng.randrange(4):
            case 0:
                packed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del packed[at : at + rng.randint(1, 4)]
            case 2:
                packed[at:at] = rng.randbytes(rng.randint(1, 3))
            case _:
                packed[at : at + 1] = bytes([rng.choice((0, 1, 2, 15, 16, 127, 128, 255))])
    device, there = outcome(dictionary, bytes(packed), max(1, len(rows) + more * (rng.random() < 0.1)))
    assert (device is None) == (there is None)
    if device is not None and there is not None:
        assert [name for name in there if not same(device[name], there[name])] == []


def test_the_bytes_of_packed_rows_do_not_change() -> None:
    for vector in json.loads(GOLDEN.read_text()):
        contract = CONTRACTS[vector["contract"]]
        packer, count = Packer(contract), len(vector["seqs"])
        packed = bytes.fromhex(vector["packed"])
        assert packer.pack({"seq": vector["seqs"], **vector["columns"]}, count) == packed
        wanted = {"seq": vector["seqs"], **vector["columns"]}
        assert packer.unpack(packed, count) == wanted
        if count:
            assert lake.read([packed], [count], contract, b"").to_pydict() == wanted


def test_a_hand_made_batch_is_read_as_the_format_says() -> None:
    contract = CONTRACTS["purchases"]  # seq, customer_id, occurred_at (difference), number_of_cds, dollar_value
    names = [(column.name, column.required) for column in wire.columns(contract)]
    assert [name for name, _ in names] == ["seq", "customer_id", "occurred_at", "number_of_cds", "dollar_value"]
    assert all(required for _, required in names)
    packed = bytes(
        [
            0x10, 0x00, 0x13, 0x00, 0x02,  # seq constant; text; time constant in ms; integer; float in hundredths
            3, *b"abc",  # the blob
            14, 2, 0xD0, 0x0F, 20,  # seq 7, then +1; time 1000 ms, then +10 ms
            1, 2,  # texts "a" and "bc"
            0, 6, 246, 18,  # new, 3, 1.23 as zigzag 246 = 0xF6 0x01 follows below
        ]
    )  # fmt: skip
    packed = packed[:-4] + bytes([0, 6, 0xF6, 0x01, 0, 5, 0x00, 2, 1, 0xF5, 0x01])
    wanted = {
        "seq": [7, 8, 9],
        "customer_id": ["a", "bc", "a"],
        "occurred_at": [1_000_000, 1_010_000, 1_020_000],
        "number_of_cds": [3, -3, -1],
        "dollar_value": [1.23, 0.0, -1.23],
    }
    assert Packer(contract).unpack(packed, 3) == wanted
    assert lake.read([packed], [3], contract, b"").to_pydict() == wanted


def test_more_rows_than_may_be_packed_are_neither_packed_nor_unpacked() -> None:
    contract = CONTRACTS["purchases"]
    most = packing.rows_max(contract)
    packer = Packer(contract)
    columns = {"customer_id": ["x"], "occurred_at": [1], "number_of_cds": [1], "dollar_value": [1.0], "seq": [1]}
    packed = packer.pack(columns, 1)
    assert packed is not None
    assert packer.pack({name: values * (most + 1) for name, values in columns.items()}, most + 1) is None
    for read in (
        lambda: packer.unpack(packed, most + 1),
        lambda: unpacking.unpack([packed], [most + 1], packing.default_plan(contract), contract),
    ):
        with pytest.raises(BatchFormatError, match=str(most)):
            read()


def test_texts_that_would_unpack_without_bound_are_not_packed_and_not_unpacked() -> None:
    contract = CONTRACTS["clicks"]
    text, count = "预" * 20_000, 200
    row = {c.name: [text if c.type is FieldType.STRING else 1] * count for c in wire.columns(contract)}
    packer = Packer(contract)
    assert packer.pack(row, count) is None
    small = packer.pack({name: values[:9] for name, values in row.items()}, 9)
    assert small is not None
    with pytest.raises(BatchFormatError, match="of text"):
        packer.unpack(small, count)
    with pytest.raises(PayloadError, match="of text"):
        lake.read([small], [count], contract, b"")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda plan: Plan(plan.fingerprint ^ 1, plan.columns), "fingerprint"),
        (lambda plan: Plan(plan.fingerprint, plan.columns[:-1]), "each of"),
        (lambda plan: Plan(plan.fingerprint, (*plan.columns[:-1], plan.columns[0])), "each of"),
        (lambda plan: Plan(plan.fingerprint, (Planned(0, True, (Term(3, 1),)), *plan.columns[1:])), "lies before it"),
        (lambda plan: Plan(plan.fingerprint, (Planned(0, texts=("a",)), *plan.columns[1:])), "numbers no texts"),
        (lambda plan: Plan(plan.fingerprint, (plan.columns[0], Planned(1, True), *plan.columns[2:])), "no terms"),
        (lambda plan: Plan(plan.fingerprint, (Planned(1, texts=("a",) * 2), Planned(0), *plan.columns[2:])), "differ"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_followed_is_refused(spoil: Any, says: str) -> None:
    plan = packing.default_plan(EVERYTHING)
    assert [COLUMNS[planned.column].name for planned in plan.columns[:2]] == ["seq", "string_must_plain"]
    with pytest.raises(ContractError, match=says):
        packing.plan_of(EVERYTHING, packing.with_plan(b"", spoil(plan)))


def test_a_plan_survives_its_dictionary_and_a_damaged_one_is_refused() -> None:
    plan = packing.default_plan(EVERYTHING)
    dictionary = packing.with_plan(b"content", plan)
    assert dictionary.startswith(b"content")
    assert packing.plan_of(EVERYTHING, dictionary) == plan
    assert packing.plan_of(EVERYTHING, b"content") == plan
    for broken in (
        dictionary[:-8] + b"\xff\xff\xff\x00" + packing.PLAN_MAGIC,
        dictionary[:-9] + b"x" + dictionary[-8:],
        packing.PLAN_MAGIC,
    ):
        with pytest.raises(ContractError, match="train it again"):
            packing.plan_of(EVERYTHING, broken)

"""The benchmark that changes a contract: its plan, its schedule and its judge, which must find what is wrong."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.lake import changes, workload
from benchmarks.lake.changes import KINDS
from benchmarks.lake.vary import Job
from contracts.contract import check, fingerprint
from contracts.microbatch import parse

START = changes.first("bench_changing")


def planned(count: int = 100, seed: int = 5) -> list[changes.Change]:
    return changes.plan(START, count, KINDS, seed)


@given(st.integers())
def test_every_version_is_a_sound_contract_and_another_one(seed: int) -> None:
    found = planned(100, seed)
    check(START)
    own = [change.contract for change in found if change.kind != "table"]
    for contract in own:
        check(contract)
    numbers = [tuple(map(int, contract.version.split("."))) for contract in (START, *own)]
    assert numbers == sorted(set(numbers))
    assert len({fingerprint(contract) for contract in own}) > len(own) * 0.8
    assert {change.kind for change in found} == set(KINDS)


def test_a_seed_decides() -> None:
    assert planned() == planned() != planned(seed=6)


def job(count: int) -> Job:
    return Job("nowhere", START, tuple(planned(count)), 4, 10, 100.0, 5.0, 2.0, 1.0, 5.0 + 2.0 * count + 1.0, 1.0)


def test_odd_devices_follow_later_and_nobody_goes_back() -> None:
    plan = job(8)
    versions = plan.versions().reshape(-1, plan.devices)
    assert (np.diff(versions, axis=0) >= 0).all()
    assert (versions[:, 0] >= versions[:, 1]).all()
    assert (versions[:, 0] > versions[:, 1]).any()
    for change in plan.changes:
        if change.kind != "table":
            first = int(np.flatnonzero(plan.versions() == change.number)[0])
            assert 0 <= first / plan.rate_batches_per_s - plan.due_s(change) < 0.05
    assert "table" not in {plan.changes[version - 1].kind for version in np.unique(versions).tolist() if version}


def as_landed(version: object, newest: object, seqs: np.ndarray) -> pa.Table:
    """Rows of a version under the newest names, by a way of its own: a mapping by field id."""
    own = {field.id: field for field in version.fields}  # type: ignore[attr-defined]
    columns = {"seq": pa.array(seqs)}
    for field in newest.fields:  # type: ignore[attr-defined]
        kind = workload.values(field, seqs[:0]).type
        found = workload.values(own[field.id], seqs).cast(kind) if field.id in own else pa.nulls(len(seqs), kind)
        columns[field.name] = found
    return pa.table(columns)


def test_the_judge_passes_what_is_right_and_finds_one_wrong_value() -> None:
    seqs = np.arange(50, dtype=np.int64)
    versions = [START, *(change.contract for change in planned(24) if change.kind != "table")]
    newest = versions[-1]
    for version in versions:
        rows = as_landed(version, newest, seqs)
        assert changes.wrong(version, newest, rows) == 0
        for name in rows.column_names[1:]:
            column = rows.column(name).combine_chunks().to_pylist()
            other = "anders" if pa.types.is_string(rows.schema.field(name).type) else 77_777
            damaged = pa.array([*column[:-1], other], rows.schema.field(name).type)
            place = rows.column_names.index(name)
            assert changes.wrong(version, newest, rows.set_column(place, name, damaged)) == 1
        assert changes.wrong(version, newest, rows.drop_columns([rows.column_names[-1]])) == len(seqs)


def test_devices_share_batches_of_the_right_version() -> None:
    from benchmarks.lake.vary import _made

    plan = job(8)
    versions = plan.versions()
    made = _made(plan, versions)
    for number in range(0, plan.total, 37):
        version, at = int(versions[number]), number // plan.devices
        header, _ = parse(made[version][at].stamped(1, 1))
        assert header.fingerprint == fingerprint(plan.contract(version))
        assert header.first_seq == at * plan.batch_rows

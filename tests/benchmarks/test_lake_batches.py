"""The batches that the lakehouse is measured with: they are what a device would send."""

import numpy as np
import pytest

from benchmarks.lake import workload
from benchmarks.lake.batches import templates
from contracts import microbatch
from contracts.contract import Contract, check, fingerprint
from lakehouse.checks import refusals
from lakehouse.decode import Arrived, decode

READINGS, WIDE = workload.readings("bench_readings"), workload.wide("bench_wide")


def arrived(batch: bytes) -> Arrived:
    header, payload = microbatch.parse(batch)
    return Arrived("bench-1", "test", header, payload, batch)


@pytest.mark.parametrize("contract", [READINGS, WIDE], ids=lambda contract: contract.id)
def test_the_lake_reads_what_was_made(contract: Contract) -> None:
    check(contract)
    made = templates(contract, batches=5, batch_rows=40, first_seq=1_000)
    batches = [arrived(template.stamped(epoch=7, sealed_at_ms=1_760_000_000_123)) for template in made]
    decoded, refused = decode(batches, contract, {})
    assert refused == ()
    seqs = np.arange(1_000, 1_200, dtype=np.int64)
    assert decoded.rows.column("seq").to_pylist() == seqs.tolist()
    expected = workload.rows(contract, seqs)
    assert decoded.rows.select(expected.column_names).to_pylist() == expected.to_pylist()
    assert not refusals(decoded.rows, contract)[0].any()


def test_a_stamp_changes_epoch_and_time_and_nothing_else() -> None:
    (template,) = templates(READINGS, 1, 200)
    header, payload = microbatch.parse(template.stamped(2**32 - 1, 253_402_300_799_999))
    assert (header.epoch, header.sealed_at_ms) == (2**32 - 1, 253_402_300_799_999)
    assert (header.fingerprint, header.first_seq, header.rows) == (fingerprint(READINGS), 0, 200)
    assert microbatch.seal(header, bytes(payload)) == template.stamped(2**32 - 1, 253_402_300_799_999)
    assert len(template.stamped(1, 1)) == template.size_bytes


def test_contracts_have_the_columns_that_are_told() -> None:
    assert (len(READINGS.fields), len(WIDE.fields)) == (8, 23)


def test_a_wider_type_has_the_same_values() -> None:
    from msgspec.structs import replace

    from contracts.contract import FieldType

    seqs = np.arange(500, dtype=np.int64)
    for name, wider in (("pressure", FieldType.LONG), ("temperature", FieldType.DOUBLE)):
        field = READINGS.field(name)
        wide = workload.values(replace(field, name="other", type=wider), seqs)
        assert workload.values(field, seqs).to_pylist() == wide.to_pylist()

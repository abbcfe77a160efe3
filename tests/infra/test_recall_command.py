"""The recall that `fieldlake ledger` states: which counts it asks for, and what it says of them."""

import pytest

from contracts.errors import OperatorMustActError
from infra.bundles.documents import read_contracts
from infra.cli.recall import measure, rendered

TELEMETRY = next(contract for contract in read_contracts() if contract.id == "telemetry")


def test_counts_of_rows_sample_and_ledger_make_a_recall() -> None:
    asked: list[str] = []

    def ask(statement: str) -> tuple[int, ...]:
        asked.append(statement)
        return 990, 100_000, 500, 0

    found = measure(TELEMETRY, "f1 > 60 OR f2 < 0", "press-07", 0.95, ask)
    (statement,) = asked
    assert "lake_a.field.telemetry WHERE (f1 > 60 OR f2 < 0) AND origin = 'press-07'" in statement
    assert "lake_a.field.telemetry_dropped WHERE (f1 > 60 OR f2 < 0)" in statement
    assert "rule NOT LIKE 'telemetry@%'" in statement
    assert found.recall.value == 1.0
    assert 0.5 < found.recall.low < 1.0
    assert "recall 1.0000 (95% interval 0." in rendered(found)
    assert "judged: 500" in rendered(found)


def test_a_ledger_that_lags_behind_its_rows_gets_one_line() -> None:
    with pytest.raises(OperatorMustActError, match="ask again then"):
        measure(TELEMETRY, "true", None, 0.95, lambda _statement: (1, 3, 5, 0))


@pytest.mark.parametrize("relevant", ["", " ", "true; DROP TABLE x", "f1 > 0 OR " * 300])
def test_a_condition_that_is_none_is_refused(relevant: str) -> None:
    with pytest.raises(OperatorMustActError, match="one SQL condition"):
        measure(TELEMETRY, relevant, None, 0.95, lambda _statement: (0, 0, 0, 0))

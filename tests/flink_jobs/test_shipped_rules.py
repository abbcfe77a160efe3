"""The rule documents that are shipped fit the contracts that they listen to."""

from pathlib import Path

import pytest

from contracts import rules
from contracts.rules import conditions
from flink_jobs.triggers.core.conditions import kind_of
from flink_jobs.triggers.preselect.row_filter import row_filter
from tests.flink_jobs.writing import contract_named

FILES = sorted((Path(__file__).parents[2] / "flink_jobs" / "triggers" / "rules").glob("*.json"))


def test_the_three_rules_are_there() -> None:
    assert [file.stem for file in FILES] == [
        "asset-anomalies-remote-diagnosis",
        "emc-report-sample",
        "ip67-canopen-consultant",
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_rule_names_fields_and_subjects_that_exist(file: Path) -> None:
    rule = rules.decode(file.read_bytes())
    assert rule.id == file.stem
    for condition in conditions(rule):
        contract = contract_named(condition.contract)
        assert contract.subject_kind == rule.subject
        for comparison in condition.where:
            assert contract.field(comparison.field).name == comparison.field
            assert not isinstance(comparison.value, tuple)
            assert kind_of(comparison.value) is not None
        found = row_filter(contract, [rule])
        assert found is not None

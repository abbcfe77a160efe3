"""The rule documents that are shipped fit the contracts that they listen to, and do what their examples say."""

from pathlib import Path

import pytest

from contracts import rules
from contracts.rule_check import check_against
from contracts.rules import conditions
from flink_jobs.triggers.core.examples import failures
from flink_jobs.triggers.preselect.row_filter import row_filter
from infra.bundles.documents import read_contracts

FILES = sorted((Path(__file__).parents[2] / "flink_jobs" / "triggers" / "rules").glob("*.json"))
CONTRACTS = {contract.id: contract for contract in read_contracts()}


def test_the_shipped_rules_are_there() -> None:
    assert [file.stem for file in FILES] == [
        "asset-anomalies-remote-diagnosis",
        "budget-concern-cost-package",
        "emc-report-sample",
        "ip67-canopen-consultant",
        "scanner-without-drg-papers",
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_rule_names_fields_and_subjects_that_exist(file: Path) -> None:
    rule = rules.decode(file.read_bytes())
    assert rule.id == file.stem
    check_against(rule, CONTRACTS)
    for condition in conditions(rule):
        assert row_filter(CONTRACTS[condition.contract], [rule]) is not None


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_rule_does_what_its_examples_say(file: Path) -> None:
    rule = rules.decode(file.read_bytes())
    assert {bool(example.expect) for example in rule.examples} == {True, False}, (
        "one that decides and one that does not"
    )
    assert failures(rule) == ()

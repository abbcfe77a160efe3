"""What the documents say is what the code has."""

import re
from pathlib import Path
from typing import get_args

import pytest

from contracts import edge_rules, rule_check, rules
from contracts.edge_rule_check import decode
from edge_agent.core.filter.outcomes import outcomes_of
from flink_jobs.triggers.core.examples import failures
from infra import reference
from infra.bundles.documents import read_contracts
from infra.cli.main import build

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _commands() -> dict[str, object]:
    return dict(reference._walk("fieldlake", reference.get_command(build())))


def test_the_reference_is_what_the_code_renders() -> None:
    written = reference.reference_file().read_text(encoding="utf-8")
    assert written == reference.render(), "write it again: python -m infra.reference"


def test_the_schema_of_edge_rules_is_what_the_code_renders() -> None:
    written = reference.edge_rule_schema_file().read_text(encoding="utf-8")
    assert written == reference.edge_rule_schema(), "write it again: python -m infra.reference"


def test_the_schema_of_rules_is_what_the_code_renders() -> None:
    written = reference.rule_schema_file().read_text(encoding="utf-8")
    assert written == reference.rule_schema(), "write it again: python -m infra.reference"


def test_every_rule_on_its_page_fits_its_contracts_and_does_what_it_says() -> None:
    page = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    contracts = {contract.id: contract for contract in read_contracts()}
    shown = [rules.decode(text) for text in re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)]
    for rule in shown:
        rule_check.check_against(rule, contracts)
        assert rule.examples
        assert failures(rule) == ()
    assert {type(rule.when) for rule in shown} == set(get_args(rules.Pattern))
    assert [operator for operator in get_args(rules.Operator) if f"`{operator}`" not in page] == []


def test_every_edge_rule_on_its_page_fits_the_contract_it_is_shown_for() -> None:
    page = (ROOT / "docs" / "edge-rules.md").read_text(encoding="utf-8")
    contracts = {contract.id: contract for contract in read_contracts()}
    shown = re.findall(r"^```json (\w+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    found = [decode(document, contracts[name]) for name, document in shown]
    assert {type(rule.action) for rule in found} == set(get_args(edge_rules.Action))
    reasons = {outcome.reason for outcome in outcomes_of(tuple(found), None, aggregates=True) if not outcome.kept}
    assert [reason for reason in reasons if f"`{reason}`" not in page] == []


def test_the_readme_shows_the_figures_of_the_newest_result() -> None:
    assert reference.with_figures(README) == README, "write them again: python -m infra.reference"


def test_the_readme_names_every_command_and_no_other() -> None:
    named = set(re.findall(r"`fieldlake ([a-z]+)", README))
    assert named == {path.split()[1] for path in _commands()}


def test_the_readme_names_only_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)", README)) <= targets


@pytest.mark.parametrize("path", sorted(_commands()))
def test_every_command_answers_help_with_an_example(path: str) -> None:
    epilog = getattr(_commands()[path], "epilog", None) or ""
    assert epilog.startswith(f"Example: {path} ") or epilog == f"Example: {path}"


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "docs/decisions/README.md",
        "docs/edge-rules.md",
        "docs/sources.md",
        "docs/consent.md",
        "docs/disaster.md",
        "docs/contracts.md",
        "docs/crm-mirror.md",
    ],
)
def test_links_to_files_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in t]
    assert [t for t in targets if not (ROOT / page).parent.joinpath(t).exists()] == []


def test_every_command_of_the_disaster_page_exists() -> None:
    page = (ROOT / "docs" / "disaster.md").read_text(encoding="utf-8")
    shown = {" ".join(words.split()[:3]) for words in re.findall(r"^fieldlake table.*$", page, re.MULTILINE)}
    commands = {path for path in _commands() if path.startswith("fieldlake table ")}
    assert shown == commands
    options = set(re.findall(r"`(--[a-z-]+)", page))
    reference_page = reference.reference_file().read_text(encoding="utf-8")
    assert [option for option in options if option not in reference_page] == []

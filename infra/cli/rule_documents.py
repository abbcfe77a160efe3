"""The commands that look at rule documents without a stack: `rules validate`, `rules test`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from contracts.rules import Rule

RULE_BYTES_MAX = 262_144  # bytes; a list of four thousand words fits, more is data and no longer a rule

Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Rule documents, JSON.")]


def validate(files: Files) -> None:
    """Check rule documents: their form, their limits, and that the contracts have what they ask for."""
    from contracts.rule_check import check_against
    from contracts.rules import conditions
    from infra.bundles.documents import read_contracts

    contracts = {contract.id: contract for contract in read_contracts()}
    for file in files:
        rule = read_rule(file)
        check_against(rule, contracts)
        listens = ", ".join(dict.fromkeys(condition.contract for condition in conditions(rule)))
        count = len(rule.examples)
        typer.echo(f"rule {rule.id} version {rule.version}: good; listens to {listens}; {_examples(count)}")


def test(files: Files) -> None:
    """Play the examples of rule documents and compare the decisions; fails when one differs."""
    from contracts.errors import RuleError
    from flink_jobs.triggers.core.examples import failures

    failed: list[str] = []
    for file in files:
        rule = read_rule(file)
        found = failures(rule)
        failed += found
        typer.echo(f"rule {rule.id} version {rule.version}: {len(rule.examples) - len(found)} of "
                   f"{_examples(len(rule.examples))} as expected")  # fmt: skip
    if failed:
        raise RuleError("; ".join(failed))


def read_rule(file: Path) -> "Rule":
    """Return the rule in a file. Raises RuleError."""
    from contracts import rules
    from contracts.errors import RuleError

    if not file.is_file() or file.stat().st_size > RULE_BYTES_MAX:
        raise RuleError(f"{file}: expected a rule document of at most {RULE_BYTES_MAX} bytes")
    try:
        return rules.decode(file.read_bytes())
    except RuleError as error:
        raise RuleError(f"{file}: {error}") from error


def _examples(count: int) -> str:
    return f"{count} example{'' if count == 1 else 's'}"

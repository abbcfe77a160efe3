"""The commands of interventions: `rules`, `decisions`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import PortBase, StateDir
from infra.cli.rule_documents import read_rule, test, validate
from infra.cli.running import endpoints_for

if TYPE_CHECKING:
    from contracts.decisions import Decision


def register(app: typer.Typer) -> None:
    """Add the commands."""
    rules = typer.Typer(help="Rules: check them, publish and delete them while everything runs.", no_args_is_help=True)
    rules.command("validate", epilog="Example: fieldlake rules validate emc-report-sample.json")(validate)
    rules.command("test", epilog="Example: fieldlake rules test emc-report-sample.json")(test)
    rules.command("apply", epilog="Example: fieldlake rules apply emc-report-sample.json")(apply)
    rules.command("delete", epilog="Example: fieldlake rules delete emc-report-sample")(delete)
    app.add_typer(rules, name="rules")
    app.command(epilog="Example: fieldlake decisions --follow --json")(decisions)


def apply(
    file: Annotated[Path, typer.Argument(help="Rule document, JSON.")],
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Publish a rule whose examples come out; it is in force within a second, nothing restarts."""
    from contracts.errors import RuleError
    from flink_jobs.triggers.core.examples import failures
    from infra.provision import apply_rules

    rule = read_rule(file)
    if failed := failures(rule):
        raise RuleError("; ".join(failed))
    offset = apply_rules(endpoints_for(state_dir, port_base).kafka.bootstrap, [rule])
    typer.echo(f"rule {rule.id} version {rule.version} published, rule set {offset}")


def delete(
    rule_id: Annotated[str, typer.Argument(metavar="RULE", help="Id of the rule.")],
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Take a rule out of force."""
    from infra.provision import delete_rule

    offset = delete_rule(endpoints_for(state_dir, port_base).kafka.bootstrap, rule_id)
    typer.echo(f"rule {rule_id} deleted, rule set {offset}")


def decisions(
    follow: Annotated[bool, typer.Option("--follow", help="Stay, and print each new decision as it is made.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line.")] = False,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Print the decisions on the log, oldest first, each id once."""
    from contracts.decisions import encode
    from infra.cli.decision_log import read_decisions

    for decision in read_decisions(endpoints_for(state_dir, port_base).kafka.bootstrap, follow):
        typer.echo(encode(decision).decode() if as_json else _line(decision))


def _line(decision: "Decision") -> str:
    about = f"{decision.subject_kind} {decision.subject}"
    standing = "" if decision.standing == "act" else f"[{decision.standing}] "
    return f"{standing}{about}: {decision.intent} -> {decision.action}  ({decision.because})"

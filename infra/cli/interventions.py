"""The commands of interventions: `rules apply`, `rules delete`, `decisions`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import PortBase, StateDir
from infra.cli.running import endpoints_for

if TYPE_CHECKING:
    from contracts.decisions import Decision

RULE_BYTES_MAX = 65_536  # bytes; a rule of this size is no longer something that a person reviews


def register(app: typer.Typer) -> None:
    """Add the commands."""
    rules = typer.Typer(help="Rules in force: publish and delete them while everything runs.", no_args_is_help=True)
    rules.command("apply", epilog="Example: fieldlake rules apply emc-report-sample.json")(apply)
    rules.command("delete", epilog="Example: fieldlake rules delete emc-report-sample")(delete)
    app.add_typer(rules, name="rules")
    app.command(epilog="Example: fieldlake decisions --follow --json")(decisions)


def apply(
    file: Annotated[Path, typer.Argument(help="Rule document, JSON.")],
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Publish a rule; it is in force within a second, nothing restarts."""
    from contracts import rules
    from contracts.errors import RuleError
    from infra.provision import apply_rules

    if not file.is_file() or file.stat().st_size > RULE_BYTES_MAX:
        raise RuleError(f"{file}: expected a rule document of at most {RULE_BYTES_MAX} bytes")
    rule = rules.decode(file.read_bytes())
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
    return f"{about}: {decision.intent} -> {decision.action}  ({decision.because})"

"""The commands of contracts: `contract diff`, `check`, `publish`, `history`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import PortBase, StateDir
from infra.cli.running import endpoints_for

if TYPE_CHECKING:
    from contracts.contract import Contract
    from contracts.evolution import Kind
    from contracts.rules import Rule

Document = Annotated[Path, typer.Argument(metavar="FILE", help="Contract document, ODCS YAML.")]
Against = Annotated[
    Path | None,
    typer.Option("--against", metavar="FILE", help="Compare with this document and not with what is published."),
]
Accept = Annotated[
    list[str] | None,
    typer.Option("--accept", metavar="CHANGE", help="Allow changes of this kind, as `check` names it; repeat it."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Contracts: what a change will do, and publishing it.", no_args_is_help=True)
    group.command("diff", epilog="Example: fieldlake contract diff telemetry.odcs.yaml")(diff)
    group.command("check", epilog="Example: fieldlake contract check telemetry.odcs.yaml --accept renamed")(check)
    group.command("publish", epilog="Example: fieldlake contract publish telemetry.odcs.yaml --accept renamed")(publish)
    group.command("history", epilog="Example: fieldlake contract history telemetry")(history)
    app.add_typer(group, name="contract")


def diff(
    file: Document,
    against: Against = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of words.")] = False,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Say what a document changes: to tables, checks, masks, jobs and devices. Nothing is published."""
    from infra.cli.contract_text import told, told_json

    new, versions, rules = _read(file, against, state_dir, port_base)
    old = versions[-1] if versions else None
    typer.echo((told_json if as_json else told)(old, new, rules))


def check(
    file: Document,
    against: Against = None,
    accept: Accept = None,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Say whether a document may be published, and if not, what to do; fails when it may not."""
    new, versions, rules = _read(file, against, state_dir, port_base)
    _require(new, versions, rules, accept)
    typer.echo(f"contract {new.id} {new.version} may be published")


def publish(
    file: Document,
    accept: Accept = None,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Publish a contract; the lake follows within a second, nothing restarts. What `check` refuses is not published."""
    from contracts.offshoots import pulled_of, sampled_of
    from infra.contract_log import published
    from lakehouse.publish import publish_contracts

    new, versions, rules = _read(file, None, state_dir, port_base)
    _require(new, versions, rules, accept)
    bootstrap = endpoints_for(state_dir, port_base).kafka.bootstrap
    # Those that follow from a contract change with it, or its devices' pulls and samples would not be understood.
    offshoots = [made for made in (sampled_of(new), pulled_of(new)) if published(bootstrap, made.id)]
    publish_contracts(bootstrap, (new, *offshoots), {})
    names = ", ".join(contract.id for contract in (new, *offshoots))
    typer.echo(f"contract {names} {new.version} published")


def history(
    contract_id: Annotated[str, typer.Argument(metavar="CONTRACT", help="Id of the contract.")],
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """List the published versions of a contract: when each was published, and what it changed."""
    from contracts.errors import ContractError
    from infra.cli.contract_text import history as lines
    from infra.contract_log import published

    found = published(endpoints_for(state_dir, port_base).kafka.bootstrap, contract_id)
    if not found:
        raise ContractError(f"contract {contract_id!r}: no version is published: see `fieldlake contract publish`")
    typer.echo(lines([(entry.contract, entry.at_ms) for entry in found]))


def _read(
    file: Path, against: Path | None, state_dir: Path | None, port_base: int | None
) -> "tuple[Contract, list[Contract], tuple[Rule, ...]]":
    """Return the document, the versions that it is compared with, the newest last, and the rules in force."""
    from infra.bundles.documents import read_contract

    new = read_contract(file)
    if against is not None:
        return new, [read_contract(against)], ()
    from infra.contract_log import published, rules_in_force

    bootstrap = endpoints_for(state_dir, port_base).kafka.bootstrap
    return new, [entry.contract for entry in published(bootstrap, new.id)], rules_in_force(bootstrap)


def _require(new: "Contract", versions: "list[Contract]", rules: "tuple[Rule, ...]", accept: list[str] | None) -> None:
    from contracts.errors import ContractError
    from contracts.evolution import problems

    found = problems(new, versions, rules, _kinds(accept or []))
    if found:
        for problem in found[1:]:
            typer.echo(f"fieldlake: {problem}", err=True)
        raise ContractError(f"contract {new.id} {new.version}: {found[0]}")


def _kinds(words: list[str]) -> "list[Kind]":
    from contracts.evolution import Kind

    try:
        return [Kind(word) for word in words]
    except ValueError as error:
        known = ", ".join(kind.value for kind in Kind)
        raise typer.BadParameter(f"--accept: {error}: expected one of {known}") from error

"""The commands of dictionaries: `dictionary train`, `dictionary publish`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import PortBase, StateDir
from infra.cli.running import endpoints_for

if TYPE_CHECKING:
    from contracts.contract import Contract

Tenant = Annotated[
    str, typer.Option("--tenant", metavar="NAME", help="Whose rows they are; rows of two tenants never meet in one.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Dictionaries that make payloads small: train and publish them.", no_args_is_help=True)
    group.command("train", epilog="Example: fieldlake dictionary train telemetry press-01.jsonl -o telemetry.zdict")(
        train
    )
    group.command("publish", epilog="Example: fieldlake dictionary publish telemetry.zdict")(publish)
    app.add_typer(group, name="dictionary")


def train(
    contract: Annotated[str, typer.Argument(metavar="CONTRACT", help="Contract that the events follow.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Events of one origin each, JSON lines.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where the dictionary goes.")],
    tenant: Tenant = "default",
) -> None:
    """Train a dictionary, and say what it saves on events that it has not seen; one that saves nothing is refused."""
    from infra.dictionaries import read_rows, write_dictionary
    from infra.dictionaries import train as learn

    meant = _contract(contract)
    trained = learn(meant, [read_rows(path, meant) for path in files], tenant)
    write_dictionary(output, trained)
    for outcome in trained.outcomes:
        typer.echo(
            f"held-out events in batches of {outcome.batch_rows:>3}: {outcome.before_bytes:.1f} bytes each without, "
            f"{outcome.after_bytes:.1f} with"
        )
    typer.echo(f"dictionary {trained.id} for {contract} of tenant {tenant}, {len(trained.data)} bytes: {output}")


def publish(
    file: Annotated[Path, typer.Argument(help="Dictionary that `train` wrote.")],
    tenant: Tenant = "default",
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Publish a dictionary: from then on the lake reads batches that name it."""
    from contracts.contract import fingerprint
    from infra.bundles.documents import read_contracts
    from infra.dictionaries import DictionaryError, read_dictionary
    from lakehouse.publish import publish_contracts

    number, plan, data = read_dictionary(file)
    if plan.tenant != tenant:
        raise DictionaryError(
            f"{file}: its rows are of tenant {plan.tenant}, this is tenant {tenant}: train one on its own rows"
        )
    contract = next((c for c in read_contracts() if fingerprint(c) == plan.fingerprint), None)
    if contract is None:
        raise DictionaryError(f"{file}: it is of no shipped contract version: train it again")
    publish_contracts(endpoints_for(state_dir, port_base).kafka.bootstrap, (), {number: data})
    typer.echo(f"dictionary {number} for {contract.id} {contract.version} published, {len(data)} bytes")


def _contract(name: str) -> "Contract":
    from contracts.errors import ContractError
    from infra.bundles.documents import read_contracts

    known = {contract.id: contract for contract in read_contracts()}
    if name not in known:
        raise ContractError(f"contract {name!r}: expected one of {', '.join(sorted(known))}")
    return known[name]

"""The commands `up`, `down`, `restart` and `status`."""

from typing import Annotated

import typer

from infra.cli.options import PortBase, StateDir, settings_of

Only = Annotated[
    str | None, typer.Option("--only", metavar="PART,PART", help="Start these parts and what they need, no others.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example: fieldlake up --only kafka,postgres")(up)
    app.command(epilog="Example: fieldlake down --state-dir /tmp/second")(down)
    app.command(epilog="Example: fieldlake restart gateway")(restart)
    app.command(epilog="Example: fieldlake status --json")(status)


def up(only: Only = None, state_dir: StateDir = None, port_base: PortBase = None) -> None:
    """Start the stack and return when every part is ready."""
    from infra.launcher.launcher import Launcher

    names = None if only is None else [name.strip() for name in only.split(",") if name.strip()]
    Launcher(settings_of(state_dir, port_base), progress=_tell).up(names)


def down(state_dir: StateDir = None, port_base: PortBase = None) -> None:
    """Stop everything that `up` started, and nothing else."""
    from infra.launcher.launcher import Launcher

    Launcher(settings_of(state_dir, port_base), progress=_tell).down()


def restart(
    part: Annotated[str, typer.Argument(help="Name of a part, as `fieldlake status` shows it.")],
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Stop one part, start it again, and return when it is ready."""
    from infra.launcher.launcher import Launcher

    Launcher(settings_of(state_dir, port_base), progress=_tell).restart(part)


def status(as_json: AsJson = False, state_dir: StateDir = None, port_base: PortBase = None) -> None:
    """Show each part: pid, memory, whether it is ready, its address, its last log error."""
    import msgspec

    from infra.launcher.status import status_of, status_table

    found = status_of(settings_of(state_dir, port_base))
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    from rich.console import Console

    Console().print(status_table(found))


def _tell(part: str, text: str) -> None:
    typer.echo(f"{part:>16}  {text}", err=True)

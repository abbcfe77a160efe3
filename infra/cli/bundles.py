"""The commands `bundle ...`: what groups of devices run, signed and published."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import PortBase, StateDir, settings_of

if TYPE_CHECKING:
    from infra.bundles.repository import Published

Group = Annotated[str, typer.Argument(metavar="GROUP", help="Group of devices.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    bundle = typer.Typer(help="What groups of devices run: sign, publish, go back.", no_args_is_help=True)
    bundle.command("init", epilog="Example: fieldlake bundle init")(init)
    bundle.command("publish", epilog="Example: fieldlake bundle publish canary out/bundle --agent-min 0.1.0")(publish)
    bundle.command("rollout", epilog="Example: fieldlake bundle rollout canary default presses")(rollout)
    bundle.command("show", epilog="Example: fieldlake bundle show --json")(show)
    bundle.command("revert", epilog="Example: fieldlake bundle revert default --to 3")(revert)
    bundle.command("assign", epilog="Example: fieldlake bundle assign press-01 canary")(assign)
    bundle.command("renew", epilog="Example: fieldlake bundle renew")(renew)
    bundle.command("rotate", epilog="Example: fieldlake bundle rotate timestamp")(rotate)
    app.add_typer(bundle, name="bundle")


def init(state_dir: StateDir = None, port_base: PortBase = None) -> None:
    """Make the repository and draw its signing keys; `fieldlake up` does it too."""
    from infra.bundles.local import repository_home, repository_of

    settings = settings_of(state_dir, port_base)
    repository_of(settings).init()
    home = repository_home(settings)
    typer.echo(f"repository {home}: signing keys in {home / 'keys'}, keep two of the three root keys elsewhere")


def publish(
    group: Group,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder with bundle.json and its files.")],
    agent_min: Annotated[
        str, typer.Option("--agent-min", metavar="VERSION", help="Oldest agent that may load it.")
    ] = "0",
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Publish a bundle to a group; devices hear of it within seconds and try it beside the one they have."""
    from infra.bundles.local import repository_of

    _tell(repository_of(settings_of(state_dir, port_base)).publish(group, folder, agent_min))


def rollout(
    source: Annotated[str, typer.Argument(metavar="FROM", help="Group whose newest release is taken.")],
    groups: Annotated[list[str], typer.Argument(metavar="TO...", help="Groups that it is given to, in one step.")],
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Give other groups exactly what one group runs, for example after a trial on few devices."""
    from infra.bundles.local import repository_of

    for published in repository_of(settings_of(state_dir, port_base)).rollout(source, tuple(groups)):
        _tell(published)


def show(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Show what every group is to run, and until when the signatures hold."""
    import msgspec

    from infra.bundles.local import repository_of

    found = repository_of(settings_of(state_dir, port_base)).state()
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
        return
    until = f"{found.timestamp_expires:%Y-%m-%d %H:%M} UTC"
    typer.echo(f"root {found.root_version}, timestamp {found.timestamp_version} until {until}")
    for group in found.groups:
        numbers = ", ".join(str(number) for number in group.numbers)
        typer.echo(
            f"{group.group}: release {group.release.number}, bundle {group.bundle_version}, {len(group.files)} files, "
            f"agent {group.release.agent_version_min} or newer; releases {numbers}"
        )


def revert(
    group: Group,
    to: Annotated[int | None, typer.Option("--to", metavar="NUMBER", help="Release [default: the one before].")] = None,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Publish the content of an older release again, under a newer number: devices never go back to an old one."""
    from infra.bundles.local import repository_of

    _tell(repository_of(settings_of(state_dir, port_base)).revert(group, to))


def assign(
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="Id of the device.")],
    group: Group,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Move a device to a group; others are in the group `default`."""
    from gateway.bundles import membership
    from infra.bundles.local import GROUPS_FILE, repository_home

    path = repository_home(settings_of(state_dir, port_base)) / GROUPS_FILE
    membership.assign(path, device, group)
    typer.echo(f"device {device} is in group {group}")


def renew(state_dir: StateDir = None, port_base: PortBase = None) -> None:
    """Sign anew what has lived half of its time; run it daily where the stack is not restarted for weeks."""
    from infra.bundles.local import repository_of

    was_due = repository_of(settings_of(state_dir, port_base)).renew()
    typer.echo("signed anew" if was_due else "nothing is due")


def rotate(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="root-1, root-2, root-3, targets, releases, snapshot or timestamp.")
    ],
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Replace a signing key; devices follow the new root by themselves. Two root keys must be there."""
    from infra.bundles.local import repository_of

    version = repository_of(settings_of(state_dir, port_base)).rotate(key)
    typer.echo(f"key {key} replaced, root {version}")


def _tell(published: "Published") -> None:
    typer.echo(
        f"group {published.group}: release {published.number}, bundle {published.bundle_version}, "
        f"{published.files} files, timestamp {published.timestamp_version}"
    )

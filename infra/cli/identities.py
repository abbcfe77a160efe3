"""The commands of devices' identities: `device invite`, `device enrol`, `device list`, `device revoke`."""

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

from infra.cli.options import PortBase, StateDir
from infra.cli.running import endpoints_for

HOURS = 24.0  # h; somebody is on the way to the device
SECONDS_PER_HOUR = 3_600
INVITATION_BYTES_MAX = 65_536  # bytes; one has 3,000

Device = Annotated[str, typer.Argument(metavar="DEVICE", help="Name of the device.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    device = typer.Typer(help="Devices: let them in, and put them out.", no_args_is_help=True)
    device.command("invite", epilog="Example: fieldlake device invite press-01 --group 冲压车间 --out press-01.json")(
        invite
    )
    device.command("enrol", epilog="Example: fieldlake device enrol press-01.json --folder press-01-identity")(enrol)
    device.command("list", epilog="Example: fieldlake device list --json")(list_devices)
    device.command("revoke", epilog="Example: fieldlake device revoke press-01 --reason stolen")(revoke)
    app.add_typer(device, name="device")


def invite(
    device: Device,
    group: Annotated[str, typer.Option("--group", metavar="NAME", help="Group that the device belongs to.")] = "",
    hours: Annotated[
        float, typer.Option("--hours", min=0.01, max=720.0, help="How long the invitation is good.")
    ] = HOURS,
    out: Annotated[
        Path | None, typer.Option("--out", dir_okay=False, help="File to write [default: DEVICE.invitation.json].")
    ] = None,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Write an invitation: whoever has the file may enrol as this device, once. An older one is void."""
    from contracts import enrolment
    from infra.fleet.identity import invite as invite_device
    from infra.launcher.files import write_file

    invitation = invite_device(endpoints_for(state_dir, port_base), device, group, round(hours * SECONDS_PER_HOUR))
    file = out or Path(f"{device}.invitation.json")
    write_file(file, enrolment.encode(invitation) + b"\n")
    typer.echo(f"{file}: {device} may enrol until {_time(invitation.expires_at_ms)}")


def enrol(
    invitation: Annotated[Path, typer.Argument(metavar="INVITATION", help="File that `device invite` wrote.")],
    folder: Annotated[
        Path, typer.Option("--folder", file_okay=False, help="Folder of the device's keys and certificates.")
    ],
) -> None:
    """Enrol as a device would: make a key, send a request, keep the certificate."""
    from contracts import enrolment
    from edge_agent.adapters.identity import IdentityFolder
    from edge_agent.enrolment.bootstrap import enrol as enrol_device

    with invitation.open("rb") as file:
        found = enrolment.decode_invitation(file.read(INVITATION_BYTES_MAX + 1))
    generation = enrol_device(found, IdentityFolder(folder))
    typer.echo(f"{generation.cert_file}: {found.device}, good until {_time(generation.validity.not_after_ms)}")


def list_devices(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """List the devices of the registry: group, state, newest certificate and until when that is good."""
    import msgspec

    from infra.cli.rows import table
    from infra.fleet.identity import operator

    with operator(endpoints_for(state_dir, port_base)) as asking:
        found = list(asking.devices())
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    rows = [[d.device, d.group, d.state, d.serial, _time(d.not_after_ms), _time(d.changed_at_ms)] for d in found]
    typer.echo(table(("device", "group", "state", "certificate", "good until", "changed"), rows))


def revoke(
    device: Device,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="For the audit trail.")] = "",
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Put a device out: when this returns its connection is cut and none of its certificates opens another."""
    from infra.fleet.identity import operator

    with operator(endpoints_for(state_dir, port_base)) as asking:
        done = asking.revoke(device, reason)
    typer.echo(f"{done.device}: {done.certificates} certificates revoked, in force after {done.in_force_ms} ms")


def _time(unix_ms: int) -> str:
    return dt.datetime.fromtimestamp(unix_ms // 1_000, dt.UTC).isoformat() if unix_ms else ""

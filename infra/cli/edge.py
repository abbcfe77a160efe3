"""The commands of a device: `edge send`, `edge consent`, and those that look at its agent.

The latter are `edge_agent.operating`, which a device has as `python -m edge_agent status`, without typer.
"""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import PortBase, StateDir, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_agent.client import Handover
    from edge_agent.operating.commands import Said

ConfigFile = Annotated[Path | None, typer.Option("--config", help="The agent's configuration.", dir_okay=False)]
Device = Annotated[
    str | None, typer.Option("--device", metavar="NAME", help="A device of the local stack, instead of --config.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
EXAMPLES = 3  # as in edge_agent.operating.trial, which is imported only when it is asked for
FLUSH_EVENTS = 200


def register(app: typer.Typer) -> None:
    """Add the commands."""
    edge = typer.Typer(help="On a device, beside its agent.", no_args_is_help=True)
    edge.callback()(_edge)
    edge.command(epilog="Example: fieldlake edge send clicks visits.jsonl --socket /run/fieldlake/agent.sock")(send)
    edge.command(epilog="Example: fieldlake edge status --device press-01")(status)
    edge.command("try", epilog="Example: fieldlake edge try --config agent.json --sample day.jsonl --diff bundle-8")(
        trial
    )
    edge.command(epilog="Example: fieldlake edge doctor --config agent.json")(doctor)
    edge.command(epilog="Example: fieldlake edge consent refuse p-17 --socket /run/fieldlake/agent.sock")(consent)
    app.add_typer(edge, name="edge")


def _edge() -> None:
    """On a device, beside its agent."""


class Wish(Enum):
    """What may be asked."""

    GRANT = "grant"
    REFUSE = "refuse"
    SHOW = "show"


def consent(
    wish: Annotated[Wish, typer.Argument(metavar="grant|refuse|show", help="What the person has decided, or show.")],
    person: Annotated[str, typer.Argument(metavar="PERSON", help="As events name the person; `-` reads a line.")],
    socket: Annotated[Path | None, typer.Option("--socket", help="The agent's Unix socket.")] = None,
    url: Annotated[str | None, typer.Option("--url", help="The agent's address, like http://127.0.0.1:8640.")] = None,
    token_file: Annotated[Path | None, typer.Option("--token-file", help="File with the token, beside --url.")] = None,
) -> None:
    """Tell the agent on this device what a person has decided about their events, or ask it.

    Ends when the decision is durable, and after a refusal the person's rows can be read no more.
    """
    from edge_agent.client import decide_by_http, decide_by_socket

    _require_one_way(socket, url, token_file)
    if person == "-":
        person = typer.get_text_stream("stdin").readline().rstrip("\n")
    if socket is not None:
        answer = decide_by_socket(socket, wish.value, person)
    else:
        assert url is not None
        assert token_file is not None
        answer = decide_by_http(url, token_file, wish.value, person)
    typer.echo(f"{answer['consent']}, decision {answer['decision'] or 'none'}: ", nl=False)
    typer.echo(f"{answer['waiting']} events wait in memory, {answer['purged']} were purged from there")


def _require_one_way(socket: Path | None, url: str | None, token_file: Path | None) -> None:
    if (socket is None) == (url is None) or (url is None) != (token_file is None):
        raise typer.BadParameter("expected --socket, or --url with --token-file")


def send(
    contract: Annotated[str, typer.Argument(metavar="CONTRACT", help="Contract that the events follow.")],
    file: Annotated[Path, typer.Argument(help="Events: JSON lines, also packed as .gz or .zst.", dir_okay=False)],
    socket: Annotated[Path | None, typer.Option("--socket", help="The agent's Unix socket.")] = None,
    url: Annotated[str | None, typer.Option("--url", help="The agent's address, like http://127.0.0.1:8640.")] = None,
    token_file: Annotated[Path | None, typer.Option("--token-file", help="File with the token, beside --url.")] = None,
    producer: Annotated[
        str | None,
        typer.Option("--producer", help="Name under which the agent knows the events [default: the file's]."),
    ] = None,
) -> None:
    """Hand the lines of a file to the agent on this device; one that was interrupted goes on where it was.

    Ends when the agent has made every event durable. An agent tells events by producer and number of the line: for a
    file that grows, name the producer.
    """
    import time

    from edge_agent.client import HttpHandover, SocketHandover, producer_of, send_file

    _require_one_way(socket, url, token_file)
    if not file.is_file() or ".csv" in file.suffixes:
        raise typer.BadParameter(f"{file}: expected a file of JSON lines")
    name = producer if producer is not None else producer_of(file)
    connect: Callable[[], Handover]
    if socket is not None:
        path = socket
        connect = lambda: SocketHandover(path, contract, name)  # noqa: E731 - one of two ways
    else:
        assert url is not None
        assert token_file is not None
        address, secret = url, token_file
        connect = lambda: HttpHandover(address, secret, contract, name)  # noqa: E731
    sent = send_file(file, connect, time.sleep)
    typer.echo(f"{sent.events} events taken, {sent.known} of them before, producer {name!r}")


def status(
    config: ConfigFile = None,
    device: Device = None,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Show how an agent fares: link, lag, spool, certificate, bundle; exit code 1 when somebody should look."""
    from edge_agent.operating.commands import tell_status

    _say(tell_status(_config_of(config, device, state_dir, port_base)), as_json)


def trial(
    sample: Annotated[Path, typer.Option("--sample", help="Events: JSON lines or CSV, also packed.", dir_okay=False)],
    config: ConfigFile = None,
    device: Device = None,
    contract: Annotated[
        str | None, typer.Option("--contract", metavar="ID", help="Contract of the events, where there are several.")
    ] = None,
    diff: Annotated[
        Path | None, typer.Option("--diff", metavar="BUNDLE", help="Folder of another bundle, to be compared.")
    ] = None,
    examples: Annotated[int, typer.Option("--examples", min=0, help="Events shown for each reason.")] = EXAMPLES,
    flush_events: Annotated[int, typer.Option("--flush-events", min=1, help="Events in a batch.")] = FLUSH_EVENTS,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Say what the bundle would keep, aggregate and drop of a sample, by which rule and why, and what would travel."""
    from edge_agent.operating.commands import tell_trial

    meant = _config_of(config, device, state_dir, port_base)
    _say(tell_trial(meant, sample, contract, diff, examples, flush_events), as_json)


def doctor(
    config: ConfigFile = None,
    device: Device = None,
    offline: Annotated[bool, typer.Option("--offline", help="Leave the broker alone.")] = False,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Look at everything an agent needs, each with what to do; changes nothing; exit code 1 when it ails."""
    from edge_agent.operating.commands import tell_diagnosis

    _say(tell_diagnosis(_config_of(config, device, state_dir, port_base), offline=offline), as_json)


def _config_of(config: Path | None, device: str | None, state_dir: Path | None, port_base: int | None) -> Path:
    if (config is None) == (device is None):
        raise typer.BadParameter("expected --config, or --device")
    if config is not None:
        return config
    folder = settings_of(state_dir, port_base).state_dir / "devices" / str(device)
    found = sorted(folder.glob("*/agent.json"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise typer.BadParameter(f"{folder}: this stack has run no agent of that name; name its file with --config")
    return found[-1]


def _say(said: "Said", as_json: bool) -> None:
    typer.echo(said.json if as_json else said.text, nl=False)
    if said.code:
        raise typer.Exit(said.code)

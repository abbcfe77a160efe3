"""The commands of a device: `edge send`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_agent.client import Handover


def register(app: typer.Typer) -> None:
    """Add the commands."""
    edge = typer.Typer(help="On a device, beside its agent.", no_args_is_help=True)
    edge.callback()(_edge)
    edge.command(epilog="Example: fieldlake edge send clicks visits.jsonl --socket /run/fieldlake/agent.sock")(send)
    app.add_typer(edge, name="edge")


def _edge() -> None:
    """On a device, beside its agent."""


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

    if (socket is None) == (url is None) or (url is None) != (token_file is None):
        raise typer.BadParameter("expected --socket, or --url with --token-file")
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

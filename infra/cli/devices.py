"""The command `replay`: an edge agent over a file."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from infra.cli.options import PortBase, StateDir
from infra.cli.running import endpoints_for

STOP_WITHIN_S = 10.0  # s that an agent gets to flush when the command is interrupted


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fieldlake replay readings.jsonl --contract telemetry --device press-01 --rate 500")(
        replay
    )


def replay(
    file: Annotated[Path, typer.Argument(help="Events: JSON lines, or CSV with a header.")],
    contract: Annotated[str, typer.Option("--contract", metavar="NAME", help="Contract that the events follow.")],
    device: Annotated[str, typer.Option("--device", metavar="ID", help="Device that publishes them.")],
    rate: Annotated[
        float, typer.Option("--rate", metavar="EVENTS_PER_S", min=0.0, help="0 = as fast as the lake takes them.")
    ] = 0.0,
    lite: Annotated[bool, typer.Option("--lite", help="As a small device: without ONNX Runtime and numpy.")] = False,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Run an edge agent over a file until the lake has its last event; print its ledger as JSON."""
    import msgspec

    from infra.bundles.store import ensure_bundle
    from infra.fleet.agent import AgentProcess, Replay, check, prepare

    endpoints = endpoints_for(state_dir, port_base)
    wanted = Replay(device, contract, file, rate, profile="lite" if lite else "full")
    check(wanted)  # before the bundle, which may take half a minute to make
    bundle_dir = ensure_bundle(endpoints, progress=_tell)
    agent = AgentProcess(prepare(endpoints, bundle_dir, wanted))
    agent.start()
    try:
        ledger = agent.wait(timeout_s=None)
    finally:
        agent.terminate(STOP_WITHIN_S)
    typer.echo(msgspec.json.format(msgspec.json.encode(ledger)).decode())
    if ledger["unexplained"] != 0:
        sys.exit(1)


def _tell(text: str) -> None:
    typer.echo(text, err=True)

"""The command `demo`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from infra.cli.options import PortBase, StateDir, settings_of

Fraction = Annotated[
    float, typer.Option("--fraction", min=0.01, max=1.0, help="Share of the data to replay; less is quicker.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder of the report and its plots.", file_okay=False)]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fieldlake demo --out out/demo")(demo)


def demo(
    out: Out = Path("out/demo"), fraction: Fraction = 1.0, state_dir: StateDir = None, port_base: PortBase = None
) -> None:
    """Replay real data through the stack, kill parts on the way, account for every row; exit 0 only if all held."""
    import msgspec

    from infra.demo.duration import duration
    from infra.demo.report import document, figures_of, held, page, write
    from infra.demo.run import run

    settings = settings_of(state_dir, port_base)
    # A copy of its own: the demo begins empty and must not touch what `fieldlake up` keeps.
    settings = msgspec.structs.replace(
        settings, state_dir=settings.state_dir.with_name(f"{settings.state_dir.name}-demo")
    )
    outcome = run(settings, tell=lambda text: typer.echo(text, err=True), fraction=fraction)
    report = document(outcome, {**figures_of(outcome), **duration()})
    write(outcome, report, out)
    typer.echo(page(report))
    typer.echo(f"report and plots: {out}")
    if not held(outcome):
        sys.exit(1)

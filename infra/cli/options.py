"""Options that several commands share: which copy of the stack is meant."""

import os
from pathlib import Path
from typing import Annotated

import typer

from infra.launcher.settings import PORT_BASE_VARIABLE, STATE_DIR_VARIABLE, StackSettings, load_settings

StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        help=f"Folder of state and logs [default: .fieldlake, or ${STATE_DIR_VARIABLE}].",
        file_okay=False,
    ),
]
PortBase = Annotated[
    int | None,
    typer.Option("--port-base", help=f"First of the ports it takes [default: 24000, or ${PORT_BASE_VARIABLE}]."),
]


def settings_of(state_dir: Path | None, port_base: int | None) -> StackSettings:
    """Return the settings meant by the options, then the environment, then the defaults."""
    return load_settings(os.environ, state_dir, port_base)

"""Assembly of the command line, and the one place where errors become a line and an exit code.

A command group is a module beside this one with a function `register(app)`; add it to `_GROUPS`.
Exit codes: 0 done, 1 it did not work, 2 the command was wrong, 130 interrupted.
"""

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final

import typer
from typer.main import get_command

from contracts.errors import FieldlakeError
from infra.cli import (
    bundles,
    contract,
    crm,
    demo,
    devices,
    dictionary,
    edge,
    erase,
    identities,
    interventions,
    pulls,
    quarantine,
    query,
    stack,
    tables,
)
from infra.cli.usage import what_was_expected

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130

_GROUPS: Final = (
    stack, demo, identities, bundles, contract, dictionary, devices, edge,
    pulls, query, tables, quarantine, crm, interventions, erase,
)  # fmt: skip


def build() -> typer.Typer:
    """Return the application with all command groups."""
    app = typer.Typer(
        name="fieldlake",
        help="Run and ask a local Fieldlake stack.",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    # With a single command typer would drop the command's name; a callback keeps it.
    app.callback()(_root)
    for group in _GROUPS:
        group.register(app)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit."""
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; every error is one line on standard error."""
    try:
        words = list(arguments) or ["--help"]
        result = get_command(build()).main(args=words, prog_name="fieldlake", standalone_mode=False)
    except typer.TyperException as error:
        return _complain(what_was_expected(error), error.exit_code)
    except typer.Exit as stop:
        result = stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        result = EXIT_INTERRUPTED
    except FieldlakeError as error:
        return _complain(str(error), EXIT_FAILED)
    except OSError as error:
        return _complain(f"{error}; free the disk, or choose another folder with --state-dir", EXIT_FAILED)
    if result == EXIT_INTERRUPTED:
        # typer turns a KeyboardInterrupt into this code, without a word.
        return _complain("interrupted; what this command had started is stopped", EXIT_INTERRUPTED)
    return result if isinstance(result, int) else 0


def _root() -> None:
    """Run and ask a local Fieldlake stack."""


def _complain(text: str, code: int) -> int:
    sys.stderr.write("fieldlake: " + " ".join(text.split()) + "\n")
    return code


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt

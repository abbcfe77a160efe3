"""`python -m edge_agent status|try|doctor`: for a device, which has none of the tools that `fieldlake` needs.

Exit code 0: healthy, or done; 1: not healthy; 2: it could not be said, the line on standard error says why.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from contracts.errors import FieldlakeError
from edge_agent.config import load
from edge_agent.operating import doctor, status, trial, trial_text

EXIT_UNHEALTHY: Final = 1
EXIT_UNKNOWN: Final = 2


class Said(Struct, frozen=True):
    """What a command has to say: for a terminal, for a program, and as an exit code."""

    text: str
    json: str
    code: int


def tell_status(config_file: Path) -> Said:
    """Say how the agent of a configuration fares. Raises ConfigError."""
    found = status.observe(load(config_file), config_file, _now_ms())
    return Said(status.text_of(found), _json(found), 0 if found.healthy else EXIT_UNHEALTHY)


def tell_trial(
    config_file: Path,
    sample: Path,
    contract: str | None,
    other_bundle: Path | None,
    examples: int,
    flush_events: int,
) -> Said:
    """Say what a bundle would do with a sample. Raises what `trial.run` raises."""
    found = trial.run(
        load(config_file),
        sample,
        contract=contract,
        other_bundle=other_bundle,
        examples=examples,
        flush_events=flush_events,
    )
    return Said(trial_text.text_of(found), _json(found), 0)


def tell_diagnosis(config_file: Path, *, offline: bool) -> Said:
    """Say what is wrong with a device."""
    found = doctor.examine(config_file, _now_ms(), offline=offline)
    return Said(doctor.text_of(found), _json(found), 0 if found.healthy else EXIT_UNHEALTHY)


def main(arguments: Sequence[str]) -> int:
    """Run one command; return the exit code."""
    options = _parser().parse_args(arguments)
    tell: Callable[[argparse.Namespace], Said] = options.tell
    try:
        said = tell(options)
    except (FieldlakeError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_UNKNOWN
    sys.stdout.write(said.json if options.json else said.text)
    return said.code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edge_agent", description="Look at the agent of this device.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = _command(commands, "status", "how the agent fares; exit code 1 when somebody should look")
    one.set_defaults(tell=lambda options: tell_status(options.config))
    one = _command(commands, "try", "what the bundle would do with a sample of events, and why")
    one.add_argument("--sample", required=True, type=Path, metavar="FILE", help="JSON lines or CSV, also .gz, .zst")
    one.add_argument("--contract", metavar="ID", help="contract of the events, where the device has several")
    one.add_argument("--diff", type=Path, metavar="BUNDLE", help="folder of another bundle, to be compared")
    one.add_argument("--examples", type=_count, default=trial.EXAMPLES_MAX, help="events shown for each reason")
    one.add_argument("--flush-events", type=_positive, default=trial.FLUSH_EVENTS, help="events in one batch")
    one.set_defaults(
        tell=lambda options: tell_trial(
            options.config, options.sample, options.contract, options.diff, options.examples, options.flush_events
        )
    )
    one = _command(commands, "doctor", "look at everything an agent needs, and say what to do")
    one.add_argument("--offline", action="store_true", help="leave the broker alone")
    one.set_defaults(tell=lambda options: tell_diagnosis(options.config, offline=options.offline))
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, what: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    command.add_argument("--config", required=True, type=Path, metavar="FILE", help="the agent's configuration")
    command.add_argument("--json", action="store_true", help="print JSON")
    return command


def _count(text: str) -> int:
    return _bounded(text, 0)


def _positive(text: str) -> int:
    return _bounded(text, 1)


def _bounded(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least} on, found {text!r}")
    return int(text)


def _json(value: Struct) -> str:
    return msgspec.json.format(msgspec.json.encode(value)).decode() + "\n"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

"""`python -m edge_agent --config FILE`: a device's agent; `status`, `try`, `doctor` look at one."""

# ruff: noqa: E402 - what is deferred must be so before the first import of it
from edge_agent.adapters.deferred import defer

defer("ipaddress")  # which pathlib has urllib load, for addresses in brackets: 0.3 MB

import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from contracts.errors import FieldlakeError
from edge_agent import logs
from edge_agent.config import load

COMMANDS: Final = ("status", "try", "doctor")
JOURNAL_STREAM: Final = "JOURNAL_STREAM"  # set by systemd where standard error goes to its journal

_LOG = logging.getLogger("edge_agent")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent; return 0 when all is accounted for, 1 when not, 2 when an operator must act.

    A command that looks at an agent returns what `edge_agent.operating.commands` says.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in COMMANDS:
        from edge_agent.operating import commands  # an agent that runs has no memory for it

        return commands.main(words)
    config_file = _config_file(words)
    defer("urllib.request")  # in which paho would look for proxies: 1.5 MB of HTTP and mail
    from edge_agent.app import run

    log = None
    try:
        config = load(config_file)
        log = logs.begin(
            Path(config.log_file) if config.log_file else None, time.monotonic, journal=JOURNAL_STREAM in os.environ
        )
        return run(config, log)
    except FieldlakeError as error:
        if log is None:
            log = logs.begin(None, time.monotonic, journal=JOURNAL_STREAM in os.environ)
        _LOG.error("%s", error)
        return 2
    finally:
        if log is not None:
            log.close()


def _config_file(arguments: Sequence[str]) -> Path:
    if len(arguments) == 2 and arguments[0] == "--config":
        return Path(arguments[1])
    # Only for those who ask for help or need it: it stays in memory with 0.5 MB.
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m edge_agent",
        description="Run as a device: take events, filter, spool, publish, free the spool on the lake's watermark.",
        epilog=f"example: python -m edge_agent --config device-01.json; {', '.join(COMMANDS)} have a --help each",
    )
    parser.add_argument("--config", required=True, type=Path, help="JSON file, see edge_agent.config.AgentConfig")
    config_file: Path = parser.parse_args(arguments).config
    return config_file


if __name__ == "__main__":
    sys.exit(main())

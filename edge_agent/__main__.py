"""`python -m edge_agent --config FILE`: replay a file as a device."""

import argparse
import logging
import sys
from pathlib import Path

from contracts.errors import FieldlakeError
from edge_agent.app import run
from edge_agent.config import load

_LOG = logging.getLogger("edge_agent")


def main() -> int:
    """Run the agent; return 0 when all is accounted for, 1 when not, 2 when an operator must act."""
    parser = argparse.ArgumentParser(
        prog="python -m edge_agent",
        description="Replay a file as a device: filter, spool, publish, free the spool on the lake's watermark.",
        epilog="example: python -m edge_agent --config device-01.json",
    )
    parser.add_argument("--config", required=True, type=Path, help="JSON file, see edge_agent.config.AgentConfig")
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        return run(load(arguments.config))
    except FieldlakeError as error:
        _LOG.error("%s", error)
        return 2


if __name__ == "__main__":
    sys.exit(main())

"""`python -m edge_agent.updating --config FILE`: look for a newer bundle, check and stage it, say what came of it.

FILE is an `edge_agent.updating.config.UpdatingConfig`. Standard output is one line, an
`edge_agent.core.updates.updates.Verdict` in JSON, whatever was found: a refused bundle is an answer, not a failure.
"""

import argparse
import datetime as dt
import sys
import time
from pathlib import Path

import msgspec

from edge_agent.core.updates.updates import Verdict
from edge_agent.updating.config import load
from edge_agent.updating.errors import UpdatingConfigError
from edge_agent.updating.fetching import DeviceFetcher
from edge_agent.updating.run import Updating


def main() -> int:
    """Run once; return 0 when there is a verdict, 2 when the configuration cannot be followed."""
    parser = argparse.ArgumentParser(
        prog="python -m edge_agent.updating",
        description="Look once for a newer bundle: fetch, verify, stage. Prints the verdict as JSON.",
        epilog="example: python -m edge_agent.updating --config updating.json --announced 17",
    )
    parser.add_argument("--config", required=True, type=Path, help="JSON file, see edge_agent.updating.config")
    parser.add_argument("--announced", type=int, default=0, metavar="N", help="timestamp version that was announced")
    parser.add_argument(
        "--known-time-ms",
        type=int,
        default=0,
        metavar="MS",
        help="Unix time that has surely passed, for a device without a clock",
    )
    arguments = parser.parse_args()
    try:
        config = load(arguments.config)
    except UpdatingConfigError as error:
        return _say(Verdict("refused", reason=error.reason, detail=str(error)), 2)
    now = dt.datetime.fromtimestamp(max(time.time(), arguments.known_time_ms / 1_000), dt.UTC)
    return _say(Updating(config, DeviceFetcher(config, time.monotonic), now).run(arguments.announced), 0)


def _say(verdict: Verdict, code: int) -> int:
    sys.stdout.write(msgspec.json.encode(verdict).decode() + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())

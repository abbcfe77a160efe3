"""`python -m flink_jobs.triggers.preselect --config FILE`: run the preselector until SIGTERM or Ctrl-C.

`FILE` holds a PreselectConfig as JSON. `FILE.ready` appears once contracts and rules are read, `FILE.status.json` is
written every second. Exit code 1 and one line on standard error when it cannot go on.
"""

import argparse
import logging
import signal
import sys
import time
from pathlib import Path

import msgspec
from confluent_kafka import KafkaException

from contracts.errors import FieldlakeError
from flink_jobs.triggers.config import PreselectConfig, read
from flink_jobs.triggers.preselect.process import Preselector
from flink_jobs.triggers.preselect.status import STATUS_INTERVAL_S, status_of, write


def main(arguments: list[str] | None = None) -> int:
    """Run the process; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m flink_jobs.triggers.preselect", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="JSON file, for example run/preselect.json")
    config_file: Path = parser.parse_args(arguments).config
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    ready_file = config_file.with_name(config_file.name + ".ready")
    ready_file.unlink(missing_ok=True)
    try:
        _run(read(config_file, PreselectConfig), config_file, ready_file)
    except (FieldlakeError, KafkaException) as error:
        print(f"preselector: {error}", file=sys.stderr)
        return 1
    finally:
        ready_file.unlink(missing_ok=True)
    return 0


def _run(config: PreselectConfig, config_file: Path, ready_file: Path) -> None:
    preselector = Preselector(config.kafka_bootstrap, config.instance)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: preselector.stop())
    preselector.catch_up()
    status_file = config_file.with_name(config_file.name + ".status.json")
    written_s = float("-inf")

    def report() -> None:
        nonlocal written_s
        if time.monotonic() - written_s >= STATUS_INTERVAL_S:
            written_s = time.monotonic()
            write(status_file, msgspec.json.encode(status_of(preselector, int(time.time() * 1_000))))
            ready_file.touch()

    preselector.run(report)


if __name__ == "__main__":
    sys.exit(main())

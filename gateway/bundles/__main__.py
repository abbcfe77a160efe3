"""Serve bundles: `python -m gateway.bundles --config FILE`.

FILE is a `gateway.bundles.config.BundlesConfig` in JSON. When the process listens it logs `ready` and creates the ready
file FILE.ready, holding its pid; it removes it when it stops. Once a second it replaces FILE.status.json, a
`gateway.bundles.server.BundlesStatus`. SIGTERM and SIGINT stop it; exit code 2 means that a person must act.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from contracts.errors import OperatorMustActError
from gateway.bundles.announcing import Announcer
from gateway.bundles.config import read_config
from gateway.bundles.membership import GroupsFile
from gateway.bundles.seen import Seen
from gateway.bundles.server import BundleServer

EXIT_OPERATOR_MUST_ACT: Final = 2
STATUS_EVERY_S: Final = 1.0

_LOG: Final = logging.getLogger("gateway.bundles")


async def serve(path: Path) -> None:
    """Serve until SIGTERM or SIGINT. Raises GatewayConfigError, OSError."""
    config = read_config(path)
    ready_file = path.with_name(f"{path.name}.ready")
    ready_file.unlink(missing_ok=True)
    server = BundleServer(
        config, GroupsFile(Path(config.groups_file)), Seen(Path(config.seen_file)), Announcer(config.mqtt)
    )
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    port = await server.start()
    tasks = [asyncio.create_task(server.follow()), asyncio.create_task(_report(server, path))]
    ready_file.write_text(f"{os.getpid()}\n")
    _LOG.info("ready address=https://%s:%d", config.host, port)
    waiting = asyncio.create_task(stopped.wait())
    try:
        done, _ = await asyncio.wait([*tasks, waiting], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        ready_file.unlink(missing_ok=True)
        for task in (*tasks, waiting):
            task.cancel()
        await asyncio.gather(*tasks, waiting, return_exceptions=True)
        await server.stop()


async def _report(server: BundleServer, path: Path) -> None:
    target = path.with_name(f"{path.name}.status.json")
    partial = path.with_name(f"{path.name}.status.json.partial")
    while True:
        try:
            partial.write_bytes(msgspec.json.encode(server.status(os.getpid())))
            os.replace(partial, target)
        except OSError as error:  # a full disk must not stop the server
            _LOG.warning("status_not_written file=%s why=%r do=%r", target, str(error), "free disk space")
        await asyncio.sleep(STATUS_EVERY_S)


def main(arguments: list[str] | None = None) -> int:
    """Run until stopped; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m gateway.bundles",
        description="Serve signed bundles to devices over HTTPS, and announce newer ones over MQTT.",
        epilog="example: python -m gateway.bundles --config .fieldlake/conf/bundles/config.json",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="configuration, JSON")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(serve(options.config))
    except (OperatorMustActError, OSError) as error:
        _LOG.error("%s", error)
        return EXIT_OPERATOR_MUST_ACT
    return 0


if __name__ == "__main__":
    sys.exit(main())

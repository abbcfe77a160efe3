"""Start the history endpoint: `python -m federation --config FILE`.

It serves HTTPS and answers `/ready` with 200 once it follows the table; SIGTERM ends it. It ends by itself, with exit
code 1, when it can no longer follow: a supervisor starts it again.
"""

import argparse
import asyncio
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Final

import pyarrow as pa
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

from contracts.errors import FieldlakeError
from federation.config import FederationConfig, read_config, read_token
from federation.history.api import create_app
from federation.history.follower import HistoryFollower
from federation.history.iceberg import IcebergHistoryTable

IO_THREADS: Final = 2  # at most two data files arrive at once; beside a busy machine more would only queue
SWITCH_INTERVAL_S: Final = 0.001  # seconds

_LOG = logging.getLogger("federation")


def bound_memory() -> None:
    """Read files with one thread and the system's allocator: Arrow's own keeps 45 MB that this process never needs."""
    pa.set_memory_pool(pa.system_memory_pool())
    pa.set_cpu_count(1)
    pa.set_io_thread_count(IO_THREADS)


def favour_requests() -> None:
    """Let a request interrupt the follower, which parses for 10 to 20 ms at every commit, after 1 ms instead of 5."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)


async def serve(config: FederationConfig) -> bool:
    """Serve until a signal (True) or until the follower ends (False)."""
    follower = HistoryFollower(IcebergHistoryTable(config.catalog))
    server = Server(
        create_app(follower, read_token(config)),
        address=config.host,
        port=config.port,
        interface=Interfaces.ASGI,
        http=HTTPModes.auto,
        websockets=False,
        log_enabled=False,
        ssl_cert=Path(config.tls_cert_file),
        ssl_key=Path(config.tls_key_file),
    )
    loop, stop, asked = asyncio.get_running_loop(), threading.Event(), asyncio.Event()

    def ask() -> None:
        asked.set()
        server.stop()  # type: ignore[no-untyped-call]  # the library leaves it unannotated

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask)

    def follow() -> None:
        try:
            follower.run(stop)
        finally:
            loop.call_soon_threadsafe(server.stop)

    thread = threading.Thread(target=follow, name="history-follower", daemon=True)
    thread.start()
    _LOG.info("history: listening at https://%s:%d", config.host, config.port)
    await server.serve()
    stop.set()
    await asyncio.to_thread(thread.join)
    return asked.is_set()


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, serve, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m federation",
        description="Serve the service record of assets over HTTPS.",
        epilog="example: python -m federation --config .fieldlake/conf/history.json",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="federation configuration, JSON")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = read_config(options.config)
        bound_memory()
        favour_requests()
        return 0 if asyncio.run(serve(config)) else 1
    except FieldlakeError as error:
        _LOG.error("%s", error)
        return 2


if __name__ == "__main__":
    sys.exit(main())

"""Start one gateway: `python -m gateway --config FILE`.

FILE is a `GatewayConfig` in JSON. When both the broker and Kafka are connected and all watermarks are read, the process
logs `ready` and creates the ready file (default: FILE.ready, holding its pid); it removes the file when it starts and
when it stops. Once a second it replaces the status file (default: FILE.status.json), a `gateway.status.GatewayStatus`.
SIGTERM and SIGINT stop it; exit code 2 means that a person must act, the last log line says how.
"""

import argparse
import logging
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from contracts.errors import OperatorMustActError
from gateway.app import Gateway
from gateway.clock import WallClock
from gateway.config import GatewayConfig
from gateway.errors import GatewayConfigError

EXIT_OPERATOR_MUST_ACT: Final = 2

_LOG: Final = logging.getLogger("gateway")


def read_config(path: Path) -> GatewayConfig:
    """Read the configuration file. Raises GatewayConfigError."""
    try:
        config = msgspec.json.decode(path.read_bytes(), type=GatewayConfig)
    except OSError as error:
        raise GatewayConfigError(
            f"configuration {path}: cannot be read: {error.strerror}: name an existing file"
        ) from None
    except msgspec.DecodeError as error:
        raise GatewayConfigError(f"configuration {path}: expected a gateway configuration in JSON: {error}") from None
    for name in (config.mqtt.ca_file, config.mqtt.cert_file, config.mqtt.key_file):
        if not Path(name).is_file():
            raise GatewayConfigError(
                f"configuration {path}: {name} does not exist: make the gateway's certificate first"
            )
    return config


def main(arguments: list[str] | None = None) -> int:
    """Run until stopped; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m gateway",
        description="Forward micro-batches from MQTT to Kafka, and watermarks back to the devices.",
        epilog="example: python -m gateway --config .fieldlake/conf/gateway.json",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="gateway configuration, JSON")
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help="made when ready (default: CONFIG.ready)")
    parser.add_argument("--status-file", type=Path, metavar="FILE", help="status (default: CONFIG.status.json)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    beside: Path = options.config
    try:
        gateway = Gateway(
            read_config(options.config),
            WallClock(),
            options.ready_file or beside.with_name(f"{beside.name}.ready"),
            options.status_file or beside.with_name(f"{beside.name}.status.json"),
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: gateway.stop())
        gateway.run()
    except OperatorMustActError as error:
        _LOG.error("%s", error)
        return EXIT_OPERATOR_MUST_ACT
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Start the enrolment service: `python -m gateway.enrolment --config FILE`.

FILE is an `EnrolmentConfig` in JSON. The process makes its authorities at its first start. When the broker has taken
its subscriptions it logs `ready` and creates the ready file (default: FILE.ready, holding its pid); once a second it
replaces the status file (default: FILE.status.json). SIGTERM and SIGINT stop it; exit code 2 means that a person must
act, the last log line says how.
"""

import argparse
import datetime as dt
import logging
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from contracts.errors import OperatorMustActError
from gateway.clock import WallClock
from gateway.enrolment.authority import CLAIMS, DEVICES, open_authority, private_dir
from gateway.enrolment.config import EnrolmentConfig
from gateway.enrolment.desk import Desk
from gateway.enrolment.door import MosquittoDoor
from gateway.enrolment.lists import RevocationLists
from gateway.enrolment.registry import Registry
from gateway.enrolment.service import Service
from gateway.errors import GatewayConfigError

EXIT_OPERATOR_MUST_ACT: Final = 2
REGISTRY_FILE: Final = "registry.sqlite"

_LOG: Final = logging.getLogger("gateway.enrolment")


def read_config(path: Path) -> EnrolmentConfig:
    """Read the configuration file. Raises GatewayConfigError."""
    try:
        config = msgspec.json.decode(path.read_bytes(), type=EnrolmentConfig)
    except OSError as error:
        raise GatewayConfigError(
            f"configuration {path}: cannot be read: {error.strerror}: name an existing file"
        ) from None
    except msgspec.DecodeError as error:
        raise GatewayConfigError(
            f"configuration {path}: expected an enrolment configuration in JSON: {error}"
        ) from None
    for name in (config.mqtt.ca_file, config.mqtt.cert_file, config.mqtt.key_file):
        if not Path(name).is_file():
            raise GatewayConfigError(f"configuration {path}: {name} does not exist: make the certificate first")
    if config.certificate_valid_s < 1:
        raise GatewayConfigError(f"configuration {path}: certificate_valid_s: expected 1 or more")
    return config


def make_service(
    config: EnrolmentConfig, ready_file: Path, status_file: Path
) -> tuple[Service, Registry, MosquittoDoor]:
    """Open what the configuration names. Raises AuthorityError and RegistryError."""
    clock, folder = WallClock(), Path(config.folder)
    now = dt.datetime.fromtimestamp(clock.now_ms() / 1_000, dt.UTC)
    devices, claims = open_authority(folder, DEVICES, now), open_authority(folder, CLAIMS, now)
    registry = Registry(private_dir(folder) / REGISTRY_FILE)
    door = MosquittoDoor(config.mqtt, RevocationLists(folder, devices), clock)
    desk = Desk(registry, devices, claims, door, clock, config.certificate_valid_s, config.pending_connection_s)
    return Service(config, desk, clock, ready_file, status_file), registry, door


def main(arguments: list[str] | None = None) -> int:
    """Run until stopped; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m gateway.enrolment",
        description="Give devices their certificates, renew them, and revoke those of devices that are taken out.",
        epilog="example: python -m gateway.enrolment --config .fieldlake/conf/enrolment/config.json",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="configuration, JSON")
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help="made when ready (default: CONFIG.ready)")
    parser.add_argument("--status-file", type=Path, metavar="FILE", help="status (default: CONFIG.status.json)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    beside: Path = options.config
    try:
        service, registry, door = make_service(
            read_config(options.config),
            options.ready_file or beside.with_name(f"{beside.name}.ready"),
            options.status_file or beside.with_name(f"{beside.name}.status.json"),
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: service.stop())
        try:
            service.run()
        finally:
            door.close()
            registry.close()
    except OperatorMustActError as error:
        _LOG.error("%s", error)
        return EXIT_OPERATOR_MUST_ACT
    return 0


if __name__ == "__main__":
    sys.exit(main())

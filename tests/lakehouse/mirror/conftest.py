"""A real PostgreSQL with the mirror's tables, made and filled as the stack does it."""

import os
from collections.abc import Iterator
from random import Random

import pytest

from infra.launcher.certificates import ensure_certificates
from infra.launcher.model import Context
from infra.launcher.parts import postgres, services
from infra.launcher.ports import free_port_base
from infra.launcher.secrets import load_secrets
from infra.launcher.settings import StackSettings
from lakehouse.mirror.config import DatabaseConfig
from tests.processes import Daemon


class Database:
    """The server, its own superuser's connection string, and the mirror's configuration."""

    def __init__(self, daemon: Daemon, context: Context) -> None:
        self.daemon, self.context = daemon, context
        self.config: DatabaseConfig = services.mirror_config(context).database
        self.admin = postgres.connection_string(context, "crm")
        self.lake = postgres.connection_string(context, "lake")


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """PostgreSQL on a port of its own."""
    settings = StackSettings(
        state_dir=tmp_path_factory.mktemp("mirror"), port_base=free_port_base(Random(os.getpid() + 1))
    )
    ensure_certificates(settings)
    context = Context(settings, load_secrets(settings))
    daemon = Daemon(postgres.part(context), context)
    try:
        daemon.start()
        yield Database(daemon, context)
    finally:
        daemon.stop()

"""The SQL engine, for what is asked of whole tables: one connection per question, so that none stays open an hour."""

from collections.abc import Sequence
from typing import Any, Final

import requests
import trino.exceptions as trino_errors
from trino.auth import BasicAuthentication
from trino.dbapi import Connection

from lakehouse.errors import EngineError
from lakehouse.quality.config import EngineConfig

SOURCE: Final = "fieldlake-quality"
REQUEST_TIMEOUT_S: Final = 30.0  # seconds; the server holds a poll for about 1 s
# What one question may take of an engine that serves people; the next hour asks again.
QUERY_LIMITS: Final = {"query_max_execution_time": "5m", "task_concurrency": "1"}


class Engine:
    """Asks Trino over TLS."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config

    def row(self, sql: str) -> Sequence[Any]:
        """Return the single row of an answer. Raises EngineError."""
        config = self._config
        with requests.Session() as http:
            http.trust_env = False
            http.verify = config.ca_file
            connection = Connection(
                host=config.host,
                port=config.port,
                user=config.user,
                source=SOURCE,
                auth=BasicAuthentication(config.user, config.password),
                http_scheme="https",
                http_session=http,
                verify=config.ca_file,
                request_timeout=REQUEST_TIMEOUT_S,
                session_properties=dict(QUERY_LIMITS),
                timezone="UTC",
            )
            try:
                cursor = connection.cursor()
                cursor.execute(sql)
                (row,) = cursor.fetchall()
            except (trino_errors.Error, trino_errors.HttpError, requests.RequestException) as error:
                raise EngineError(f"Trino at {config.host}:{config.port}: {error}: asked again next time") from error
        return list(row)

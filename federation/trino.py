"""Client of the SQL engine: one kept-alive TLS connection, a statement in, rows out, typed errors."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import requests
import trino.exceptions as engine
from msgspec import Struct
from trino.auth import BasicAuthentication
from trino.dbapi import Connection

from federation.config import TrinoConfig
from federation.errors import (
    EngineBusyError,
    EngineStartingError,
    LoginRefusedError,
    QueryInterruptedError,
    QueryRefusedError,
)

SOURCE: Final = "fieldlake"
REQUEST_TIMEOUT_S: Final = 30.0  # the server holds a poll for about 1 s; longer means that it is gone
# Trying again is the caller's decision, made from the error's type; one attempt also keeps timings honest.
ATTEMPTS_MAX: Final = 1

_STARTING: Final = frozenset({"SERVER_STARTING_UP", "NO_NODES_AVAILABLE", "SERVER_SHUTTING_DOWN"})
_LOGIN_STATUSES: Final = ("error 401", "error 403")
# What the text of an error says when no statement can have begun; the last is Trino before its password file is read.
_UNOPENED: Final = (
    "Failed to establish a new connection",
    "Connection refused",
    "ConnectTimeout",
    "authenticators were not loaded",
)


class Result(Struct, frozen=True):
    """Rows of one statement, all of them, and the names of their columns."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def dicts(self) -> list[dict[str, Any]]:
        """Return the rows by column name."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class TrinoClient:
    """One user's connection. Not for use by two threads at once.

    The session ignores proxies and certificate variables of the environment: REQUESTS_CA_BUNDLE would beat `verify`.
    """

    def __init__(self, config: TrinoConfig, session_properties: Mapping[str, str] | None = None) -> None:
        self._address = f"https://{config.host}:{config.port}"
        self._user = config.user
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.verify = config.ca_file
        self._connection = Connection(
            host=config.host,
            port=config.port,
            user=config.user,
            source=SOURCE,
            auth=BasicAuthentication(config.user, config.password),
            http_scheme="https",
            http_session=self._http,
            verify=config.ca_file,
            max_attempts=ATTEMPTS_MAX,
            request_timeout=REQUEST_TIMEOUT_S,
            session_properties=dict(session_properties or {}),
            legacy_prepared_statements=False,  # parameters travel with the statement: one round trip instead of two
            timezone="UTC",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> Result:
        """Run one statement with its `?` bound in order, and return all rows.

        Raises EngineStartingError, EngineBusyError (repeat), QueryInterruptedError (repeat only what changes nothing),
        LoginRefusedError, QueryRefusedError (a person must act).
        """
        cursor = self._connection.cursor()
        try:
            cursor.execute(sql, list(parameters) or None)
            rows = [tuple(row) for row in cursor.fetchall()]
        except engine.TrinoQueryError as error:
            raise _refusal(error) from error
        except (engine.TrinoConnectionError, engine.HttpError, requests.exceptions.RequestException) as error:
            raise self._lost(error) from error
        return Result(tuple(column.name for column in cursor.description or ()), rows)

    def _lost(self, error: Exception) -> Exception:
        """Return our error for a request without an answer: only an unopened connection proves that nothing ran."""
        text = str(error)
        if text.startswith(_LOGIN_STATUSES):
            return LoginRefusedError(
                f"Trino at {self._address} refused user {self._user!r}: check the password in the configuration, "
                "and that the user is in the engine's password file"
            )
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return LoginRefusedError(
                f"Trino at {self._address} shows a certificate that {self._http.verify} did not sign: "
                "give the authority of this stack as ca_file"
            )
        if isinstance(error, engine.Http503Error) or any(sign in text for sign in _UNOPENED):
            return EngineStartingError(f"Trino at {self._address} does not answer, it may be starting: {text}")
        return QueryInterruptedError(f"Trino at {self._address}: the connection broke while a statement ran: {text}")


def _refusal(error: engine.TrinoQueryError) -> Exception:
    """Return our error for what the engine said of a statement."""
    name = error.error_name or "UNNAMED"
    if name in _STARTING:
        return EngineStartingError(f"Trino is starting or stopping ({name}): {error.message}")
    if error.error_type == "INSUFFICIENT_RESOURCES":
        return EngineBusyError(f"Trino gave up for want of resources ({name}): {error.message}")
    line, column = error.error_location or (None, None)
    return QueryRefusedError(name, error.message, line, column)

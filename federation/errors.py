"""Errors of the query side. Catch a branch: it answers "what may I do now?".

RetrySafeError
├── EngineStartingError        Trino is not up, or has no workers yet: nothing ran
├── EngineBusyError            Trino refused or gave up for want of resources
└── StoreUnavailableError      the catalog or the object store did not answer
OutcomeUnknownError
└── QueryInterruptedError      the connection broke while a statement ran: only a SELECT may be repeated blindly
OperatorMustActError
├── LoginRefusedError          the engine does not take this user and password, or its certificate is not trusted
├── QueryRefusedError          the statement cannot run as it stands: carries the engine's word and the position
├── CannedQueryError           a query document, or what was bound to it, is not as declared
├── ServiceConfigError         a configuration file cannot be followed
└── HistoryTableError          the history table is not the one that its contract describes
"""

from contracts.errors import OperatorMustActError, OutcomeUnknownError, RetrySafeError


class EngineStartingError(RetrySafeError):
    """Trino does not answer yet, or answers before its workers are there."""


class EngineBusyError(RetrySafeError):
    """Trino had no memory, queue or time left for the statement."""


class StoreUnavailableError(RetrySafeError):
    """The catalog or the object store did not answer; the last good state stays in use."""


class QueryInterruptedError(OutcomeUnknownError):
    """The connection broke while a statement ran."""


class LoginRefusedError(OperatorMustActError):
    """User, password or certificate were refused."""


class QueryRefusedError(OperatorMustActError):
    """The statement cannot run. `line` and `column` count from 1; both are None when the engine names no place."""

    def __init__(self, name: str, message: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.line = line
        self.column = column


class CannedQueryError(OperatorMustActError):
    """A query document cannot be followed, or the bound parameters are not the declared ones."""


class ServiceConfigError(OperatorMustActError):
    """A configuration or secret file is missing, or holds something else than it should."""


class HistoryTableError(OperatorMustActError):
    """The table lacks a column that the history is made of."""

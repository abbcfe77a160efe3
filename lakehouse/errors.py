"""Errors of the lakehouse. Catch a branch: it answers "what may I do now?".

FieldlakeError
├── RetrySafeError
│   ├── CommitConflictError        other writers moved the table too often in a row: recover and repeat
│   ├── SchemaBehindError          rows of a version newer than the table's columns as known here: open it again
│   ├── StateMovedError            another committer has committed to the table: recover and settle again
│   ├── StaleError                 a writer knows less than a table: read the states and the log again
│   ├── ShareTakenError            another worker of the same name has joined: join again
│   ├── EngineError                the SQL engine did not answer a question of the quality process
│   ├── LogUnavailableError        the log did not answer or did not take a message
│   └── StoreUnavailableError      an object store or catalog did not answer; no table was changed
├── OutcomeUnknownError
│   └── CommitOutcomeUnknownError  a commit may have landed and the catalog cannot be asked: recover, then look
└── OperatorMustActError
    ├── ConfigError                the configuration file cannot be followed
    ├── DeleteFilesError           another engine has added delete files to a table that maintenance rewrites
    ├── ExpectationError           a file of expectations cannot be followed; the last good one stays in force
    ├── FencedError                another process does the work of this one
    ├── HandoverError              a message between writers and committers cannot be read
    ├── RowCountError              a data file has other rows than its entry says
    ├── StateError                 a table's recovery state cannot be read
    ├── ValueRefusedError          the database does not take a value of a CRM record; it goes to the dead letters
    ├── TableConflictError         a contract does not fit the table that exists
    ├── ForeignTableError          a table of another writer cannot be read
    │   ├── UnsupportedTableError      it uses something whose rows we could not vouch for
    │   └── BrokenTableError           its files are missing, or are not what its metadata says
    ├── OriginalError              the original of a refused row cannot be read as a row of its contract
    └── PayloadError               a batch's payload is not what its header says; the batch goes to the dead letters
"""

from contracts.errors import OperatorMustActError, OutcomeUnknownError, RetrySafeError


class CommitConflictError(RetrySafeError):
    """Other writers moved the table more often than a commit tries."""


class SchemaBehindError(RetrySafeError):
    """Rows of a contract version that the table's columns, as they are known here, do not follow yet."""


class StateMovedError(RetrySafeError):
    """Another committer has committed to a table that this one serves; nothing has happened."""


class StaleError(RetrySafeError):
    """A writer's knowledge of a table is behind it: the states are read again, then the log."""


class ShareTakenError(RetrySafeError):
    """The log takes another worker of the same name for the one whose share this is; nothing was read."""


class EngineError(RetrySafeError):
    """The SQL engine did not answer; nothing was changed."""


class LogUnavailableError(RetrySafeError):
    """The log did not answer or did not take a message in time."""


class StoreUnavailableError(RetrySafeError):
    """An object store or a catalog did not answer; no table was changed."""


class CommitOutcomeUnknownError(OutcomeUnknownError):
    """A commit may have landed; nothing of it may be cleaned up."""


class ConfigError(OperatorMustActError):
    """The configuration file cannot be followed."""


class DeleteFilesError(OperatorMustActError):
    """A table has delete files, which maintenance does not apply."""


class ExpectationError(OperatorMustActError):
    """A file of expectations cannot be followed."""


class FencedError(OperatorMustActError):
    """Another process does the work of this one; it stops, so that not both do."""


class HandoverError(OperatorMustActError):
    """A message between writers and committers is not one: another version of the program writes there."""


class RowCountError(OperatorMustActError):
    """A data file has another number of rows than the entry that was committed with it."""


class StateError(OperatorMustActError):
    """The recovery state that a snapshot names cannot be read."""


class ValueRefusedError(OperatorMustActError):
    """The database does not take a value of some CRM record; nothing of its batch was written."""


class TableConflictError(OperatorMustActError):
    """A contract does not fit the table that exists under its name."""


class ForeignTableError(OperatorMustActError):
    """A table of another writer cannot be read; the text names what and where."""


class UnsupportedTableError(ForeignTableError):
    """The table uses something that we do not read, so no row of it is shown rather than a wrong one."""


class BrokenTableError(ForeignTableError):
    """Files of the table are missing, unreadable, or hold something else than its metadata says."""


class OriginalError(OperatorMustActError):
    """The original of a refused row cannot be read as a row of its contract."""


class PayloadError(OperatorMustActError):
    """A payload is not what its header says. `reason` is a short stable code for dead letters and metrics."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason

"""Errors of set-up. Each is one line for the person at the terminal: what, expected, found, what to do.

SetupError                      set-up stops, finished steps stay
├── PythonVersionError              the interpreter is not the one the lock files were made for
├── MissingPrivilegeError           a Debian package is missing and nobody here may install it
├── DiskSpaceError                  not enough room, found before or during a step
├── CommandFailedError              a program that a step runs ended with an error
├── DownloadError                   an artifact did not arrive
└── DigestMismatchError             an artifact arrived and is not the one in the list

The tree is not rooted in `contracts.errors`: set-up runs before any environment exists, so it imports nothing
that could need one.
"""


class SetupError(Exception):
    """Set-up cannot go on; the text says what to do."""


class PythonVersionError(SetupError):
    """The interpreter is not the one the lock files were made for."""


class MissingPrivilegeError(SetupError):
    """A Debian package is missing and nobody here may install it."""


class DiskSpaceError(SetupError):
    """There is not enough room."""


class CommandFailedError(SetupError):
    """A program that a step runs ended with an error."""


class DownloadError(SetupError):
    """An artifact did not arrive."""


class DigestMismatchError(SetupError):
    """An artifact arrived and is not the one in the list."""

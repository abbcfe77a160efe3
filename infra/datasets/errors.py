"""Errors of the data-set readers.

OperatorMustActError
├── SourceFileError     a package's data file is absent, or is not the one that we know how to read
└── FractionError       the asked-for share of the data is no share
"""

from contracts.errors import OperatorMustActError


class SourceFileError(OperatorMustActError):
    """A data set's file cannot be read as that data set."""


class FractionError(OperatorMustActError):
    """The share of the data to be written is not above 0 and at most 1."""

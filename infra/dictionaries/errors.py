"""Errors of dictionaries.

FieldlakeError
└── OperatorMustActError
    └── DictionaryError            rows that a dictionary cannot be made from, or one that does not help or fit
"""

from contracts.errors import OperatorMustActError


class DictionaryError(OperatorMustActError):
    """Rows that a dictionary cannot be made from, or a dictionary that does not help or fit."""

"""Errors of packaging, in the tree of `contracts.errors`.

FieldlakeError
└── OperatorMustActError
    └── PackagingError             what is to be packed is not complete, or not what was locked
"""

from contracts.errors import OperatorMustActError


class PackagingError(OperatorMustActError):
    """What is to be packed is not complete, or not what was locked."""

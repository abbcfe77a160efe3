"""Errors of the bundle repository, in the tree of `contracts.errors`.

FieldlakeError
└── OperatorMustActError
    ├── RepositoryMissingError     there is no repository, or it was made before
    ├── RepositoryDamagedError     a file of the repository is not what the others say
    ├── SigningKeyError            a signing key is missing, readable by others, or not the one that is trusted
    └── NoSuchReleaseError         a group or a release of it was never published
"""

from contracts.errors import OperatorMustActError


class RepositoryMissingError(OperatorMustActError):
    """There is no repository, or it was made before."""


class RepositoryDamagedError(OperatorMustActError):
    """A file of the repository is not what the others say."""


class SigningKeyError(OperatorMustActError):
    """A signing key is missing, readable by others, or not the one that is trusted."""


class NoSuchReleaseError(OperatorMustActError):
    """A group, or a release of it, was never published."""

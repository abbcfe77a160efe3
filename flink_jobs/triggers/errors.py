"""Errors of the trigger path. Catch a branch: it answers "what may I do now?".

RetrySafeError
└── DeliveryError              the log did not take a candidate message; its batch is read again
OperatorMustActError
├── StateFormatError           bytes of keyed state are not in a form this version reads
├── TriggersConfigError        a configuration file is not one we can follow
└── PublishError               a rule could not be put on the log
"""

from contracts.errors import OperatorMustActError, RetrySafeError


class DeliveryError(RetrySafeError):
    """The log did not take a candidate message; its batch is read again by the next start."""


class StateFormatError(OperatorMustActError):
    """Bytes of keyed state are not in a form that this version reads."""


class TriggersConfigError(OperatorMustActError):
    """A configuration file is missing or not in the form that its class states."""


class PublishError(OperatorMustActError):
    """The log did not take a rule document."""

"""Errors of the edge agent, in the tree of `contracts.errors`.

FieldlakeError
├── IllegalStepError           a state machine was asked for a step that its table does not have: a defect of ours
├── RetrySafeError
│   ├── SpoolWriteError            the disk took no more; the group is kept in memory and written again
│   ├── HandoverError              an agent did not take an app's events; those that it did take it knows by number
│   └── NotEnrolledError           broker or enrolment service did not answer; the same invitation is good again
└── OperatorMustActError
    ├── ConfigError                the configuration file cannot be followed
    ├── ConsentError               what people have decided cannot be read, or no further decision be taken
    ├── BundleError                the bundle does not fit the configuration, or one of its files is not the one named
    ├── DetectorStateError         the saved detector is damaged, or of another version
    ├── RefusedError               an agent refuses an app's events, and will when they come again
    ├── SourceError                the source cannot be read, or is not the one that the spool was filled from
    ├── SpoolError                 the spool belongs to another device or source, or nothing of it can be read
    ├── IdentityError              key and certificate of the device are missing, do not fit, or were refused
    └── InvitationError            the invitation cannot be followed, or the enrolment service refused it
"""

from contracts.errors import FieldlakeError, OperatorMustActError, RetrySafeError


class IllegalStepError(FieldlakeError):
    """A state machine was asked for a step that its table does not have."""


class SpoolWriteError(RetrySafeError):
    """The disk refused a write; what was to be written is still in memory."""


class HandoverError(RetrySafeError):
    """An agent did not take an app's events; sent again, those that it did take are known by their numbers."""


class ConfigError(OperatorMustActError):
    """The configuration file cannot be followed."""


class ConsentError(OperatorMustActError):
    """What people have decided cannot be read, or no further decision be taken."""


class BundleError(OperatorMustActError):
    """The bundle does not fit the configuration, or one of its files is not the one named."""


class DetectorStateError(OperatorMustActError):
    """The saved detector is damaged, or of another version."""


class RefusedError(OperatorMustActError):
    """An agent refuses an app's events, and will when they come again."""


class SourceError(OperatorMustActError):
    """The source cannot be read, or is not the one that the spool was filled from."""


class SpoolError(OperatorMustActError):
    """The spool belongs to another device or source, or nothing of it can be read."""


class IdentityError(OperatorMustActError):
    """Key and certificate of the device are missing, do not fit, or were refused."""


class InvitationError(OperatorMustActError):
    """The invitation cannot be followed, or the enrolment service refused it."""


class NotEnrolledError(RetrySafeError):
    """Broker or enrolment service did not answer; the same invitation is good again."""

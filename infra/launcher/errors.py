"""Errors of the launcher. All leaves name the part, what was expected, what was found and what to do.

FieldlakeError
├── RetrySafeError
│   ├── NotReadyError              a part does not answer yet: probe again
│   └── LauncherBusyError          another `up` or `down` of the same state folder runs
└── OperatorMustActError
    ├── SettingsError              a setting of the stack is not one we can follow
    ├── UnknownPartError           no part has this name
    ├── DependencyCycleError       parts wait for each other
    ├── PortInUseError             somebody else holds a port that a part needs
    ├── PartFailedError            a part did not become ready
    └── SupervisorError            the supervisor itself did not start or answer
"""

from contracts.errors import OperatorMustActError, RetrySafeError


class NotReadyError(RetrySafeError):
    """The part does not answer yet."""


class LauncherBusyError(RetrySafeError):
    """Another launcher works on the same state folder."""


class SettingsError(OperatorMustActError):
    """A setting of the stack cannot be followed."""


class UnknownPartError(OperatorMustActError):
    """No part has this name."""


class DependencyCycleError(OperatorMustActError):
    """Parts wait for each other, so none of them can start."""


class PortInUseError(OperatorMustActError):
    """A port that a part needs is held by somebody else."""


class PartFailedError(OperatorMustActError):
    """A part did not become ready."""


class SupervisorError(OperatorMustActError):
    """The supervisor did not start, or does not answer."""

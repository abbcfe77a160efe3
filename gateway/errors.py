"""Errors of the gateway.

FieldlakeError
└── OperatorMustActError
    ├── GatewayConfigError         the configuration file is missing or not one we can follow
    └── LogFatalError              the Kafka producer gave up for good: the process ends, nothing unacknowledged is lost
"""

from contracts.errors import OperatorMustActError


class GatewayConfigError(OperatorMustActError):
    """The configuration file is missing or cannot be followed."""


class LogFatalError(OperatorMustActError):
    """The Kafka producer cannot go on; a new process can."""

"""Errors of the gateway.

FieldlakeError
├── RetrySafeError
│   └── BrokerAwayError            the broker cannot be told now; a revocation is repeated until it can
├── OutcomeUnknownError
│   └── NoAnswerError              the enrolment service did not answer an operator: list the devices before repeating
└── OperatorMustActError
    ├── GatewayConfigError         the configuration file is missing or not one we can follow
    ├── LogFatalError              the Kafka producer gave up for good: the process ends, nothing unacknowledged is lost
    ├── AuthorityError             the folder of a certificate authority is not one we can use
    ├── RequestError               a certificate signing request is not one we sign
    ├── RegistryError              the registry of devices cannot be opened
    └── OperatorRefusedError       the enrolment service refused what an operator asked for
"""

from contracts.errors import OperatorMustActError, OutcomeUnknownError, RetrySafeError


class BrokerAwayError(RetrySafeError):
    """The broker cannot be told at present."""


class NoAnswerError(OutcomeUnknownError):
    """The enrolment service did not answer in time; it may have done what was asked."""


class GatewayConfigError(OperatorMustActError):
    """The configuration file is missing or cannot be followed."""


class LogFatalError(OperatorMustActError):
    """The Kafka producer cannot go on; a new process can."""


class AuthorityError(OperatorMustActError):
    """The folder of a certificate authority cannot be used."""


class RequestError(OperatorMustActError):
    """A certificate signing request is not one we sign."""


class RegistryError(OperatorMustActError):
    """The registry of devices cannot be opened."""


class OperatorRefusedError(OperatorMustActError):
    """The enrolment service refused what an operator asked for."""

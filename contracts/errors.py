"""Roots of every error in Fieldlake. Catch a branch: it answers "what may I do now?".

FieldlakeError
├── RetrySafeError             nothing happened: repeat
├── OutcomeUnknownError        it may have happened: ask by identity, never clean up
└── OperatorMustActError       repeating cannot help: the text says what to do
    ├── ContractError              a contract document is not one we can follow
    ├── BatchError                 bytes that claim to be a micro-batch are not one
    │   ├── BatchTruncatedError
    │   ├── BatchChecksumError
    │   └── BatchFormatError
    ├── UnknownContractError       no published contract has this fingerprint
    ├── ReleaseError               a bundle cannot be published or read as a release
    ├── RuleError                  a rule document is not one we can follow
    ├── WatermarkError             a watermark document is not one we can follow
    ├── PullError                  a pull cannot be asked for, or not be followed
    ├── CrmChangeError             bytes that claim to be a change of a CRM record are not one we can follow
    └── EnrolmentMessageError      bytes that claim to be a message of enrolment are not one
"""

from typing import Final


class FieldlakeError(Exception):
    """Root of all errors raised by Fieldlake's own code."""


class RetrySafeError(FieldlakeError):
    """Nothing happened; the same call may be repeated."""


class OutcomeUnknownError(FieldlakeError):
    """The effect may or may not have happened; ask by identity before repeating."""


class OperatorMustActError(FieldlakeError):
    """Repeating cannot help; the message says what a person should do."""


class ContractError(OperatorMustActError):
    """A data contract document breaks one of our rules for contracts."""


class BatchError(OperatorMustActError):
    """Bytes that claim to be a micro-batch are not one.

    `reason` is a short stable code, used in dead letters and metrics.
    """

    reason: str = "bad_batch"


class BatchTruncatedError(BatchError):
    """The batch ends before its header does; a payload cut short shows as a wrong checksum."""

    reason = "truncated_batch"


class BatchChecksumError(BatchError):
    """Header and payload do not give the checksum that the header carries."""

    reason = "wrong_checksum"


class BatchFormatError(BatchError):
    """Magic, version, codec or a count in the header is outside what the format allows."""

    reason = "bad_format"


class UnknownContractError(OperatorMustActError):
    """No published contract has the fingerprint that a batch names."""

    reason: Final = "unknown_contract"


class ReleaseError(OperatorMustActError):
    """A bundle cannot be published or read as a release."""


class RuleError(OperatorMustActError):
    """A rule document cannot be followed."""


class WatermarkError(OperatorMustActError):
    """A watermark document cannot be followed."""


class PullError(OperatorMustActError):
    """A pull cannot be asked for, or its request cannot be followed."""


class CrmChangeError(OperatorMustActError):
    """A change of a CRM record cannot be followed. `reason` is a short stable code for dead letters and metrics."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"CRM change: {detail}")
        self.reason = reason


class EnrolmentMessageError(OperatorMustActError):
    """Bytes that claim to be a message of enrolment are not one."""

"""Why a bundle was not taken, in the tree of `contracts.errors`. `reason` is the code in verdicts and in the status.

FieldlakeError
├── RetrySafeError
│   └── FailedError                for a reason that passes
│       ├── UnreachableError           the server does not answer, or says no
│       ├── SlowServerError            the server was too slow, or sent without end
│       ├── BehindError                the server has less than what was announced
│       ├── NothingPublishedError      no bundle was published to the group
│       ├── DiskError                  the disk took no more; what was fetched is fetched again
│       └── BusyError                  another process works on the same folder
└── OperatorMustActError
    ├── UpdatingConfigError        the configuration cannot be followed
    └── RefusedError               what the server gave is not to be trusted, or not for this device
        ├── RollbackError              older than what this device has trusted before
        ├── FrozenError                expired: the server keeps newer metadata back, or nobody signs any more
        ├── SignatureError             too few valid signatures of trusted keys
        ├── MetadataError              not the metadata that it claims to be
        ├── MixedError                 files or metadata of different states put together
        ├── OversizedError             larger than signed, or than any bundle may be
        └── ReleaseRefusedError        signed, but this release is not for this device; it is not tried again
            ├── UnsafeNameError            a file name that leaves the bundle's folder
            ├── ForeignGroupError          a bundle for another group
            ├── AgentTooOldError           a bundle for a newer agent
            └── UnusableBundleError        a bundle that does not load
"""

from contracts.errors import OperatorMustActError, RetrySafeError


class FailedError(RetrySafeError):
    """For a reason that passes."""

    reason = "failed"


class UnreachableError(FailedError):
    """The server does not answer, or says no."""

    reason = "unreachable"


class SlowServerError(FailedError):
    """The server was too slow, or sent without end."""

    reason = "slow_server"


class BehindError(FailedError):
    """The server has less than what was announced."""

    reason = "behind_announcement"


class NothingPublishedError(FailedError):
    """No bundle was published to the group."""

    reason = "nothing_published"


class DiskError(FailedError):
    """The disk took no more; what was fetched is fetched again."""

    reason = "disk"


class BusyError(FailedError):
    """Another process works on the same folder."""

    reason = "busy"


class UpdatingConfigError(OperatorMustActError):
    """The configuration cannot be followed."""

    reason = "configuration"


class RefusedError(OperatorMustActError):
    """What the server gave is not to be trusted, or not for this device."""

    reason = "refused"


class RollbackError(RefusedError):
    """Older than what this device has trusted before."""

    reason = "rollback"


class FrozenError(RefusedError):
    """Expired: the server keeps newer metadata back, or nobody signs any more."""

    reason = "expired"


class SignatureError(RefusedError):
    """Too few valid signatures of trusted keys."""

    reason = "bad_signature"


class MetadataError(RefusedError):
    """Not the metadata that it claims to be."""

    reason = "bad_metadata"


class MixedError(RefusedError):
    """Files or metadata of different states put together, or changed."""

    reason = "mixed"


class OversizedError(RefusedError):
    """Larger than signed, or than any bundle may be."""

    reason = "oversized"


class ReleaseRefusedError(RefusedError):
    """Signed, but this release is not for this device; it is not tried again."""

    reason = "release_refused"


class UnsafeNameError(ReleaseRefusedError):
    """A file name that leaves the bundle's folder."""

    reason = "unsafe_name"


class ForeignGroupError(ReleaseRefusedError):
    """A bundle for another group."""

    reason = "foreign_group"


class AgentTooOldError(ReleaseRefusedError):
    """A bundle for a newer agent."""

    reason = "agent_too_old"


class UnusableBundleError(ReleaseRefusedError):
    """A bundle that does not load."""

    reason = "unusable"

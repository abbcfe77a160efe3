"""Values of the mirror: what is known of a record, and how it is named.

None of them can be part of a cycle, so the collector need not look at the hundred thousands of a batch.
"""

from typing import Final, NamedTuple

from msgspec import Raw, Struct

Clock = tuple[int, int]
"""A version: commit time in us, number within it."""

NEVER: Final[Clock] = (-1, 0)  # before every version
NEVER_US: Final = -1

Key = tuple[str, str, str, str]
"""System, tenant, object, record."""


class Scope(NamedTuple):
    """All records of one object of a tenant in a system."""

    system: str
    tenant: str
    object: str


class SnapshotKey(NamedTuple):
    """One reading of a whole object, as of `at_us`."""

    scope: Scope
    at_us: int
    id: str


class Register(Struct, frozen=True, array_like=True, gc=False):
    """The newest known value of one field: JSON, and the version that it is of."""

    at_us: int
    number: int
    value: Raw


class Life(Struct, frozen=True, array_like=True, gc=False):
    """The newest statement of whether the record is there; of two at one version the deletion counts."""

    at_us: int = NEVER_US
    number: int = 0
    deleted: bool = False


class Newest(Struct, frozen=True, array_like=True, gc=False):
    """The newest change of all, and its cause as JSON."""

    at_us: int = NEVER_US
    number: int = 0
    cause: str = ""


class Record(Struct, frozen=True, gc=False):
    """What is known of a record. Joining two of them is associative, commutative and idempotent, field by field.

    `full` is the version of the newest full reading: a field that is older and was not in it is null. `gap` is that of
    the newest change whose fields are not known. `seen_us` is when it was last known to be there, `swept_us` when
    the newest complete snapshot without it began.
    """

    fields: dict[str, Register] = {}
    full: Clock = NEVER
    gap: Clock = NEVER
    life: Life = Life()
    newest: Newest = Newest()
    seen_us: int = NEVER_US
    swept_us: int = NEVER_US

    @property
    def deleted_us(self) -> int | None:
        """When it was deleted, None while it is there."""
        if self.life.deleted:
            return self.life.at_us
        return self.swept_us if self.swept_us > self.seen_us else None

    @property
    def stale_us(self) -> int | None:
        """Since when its fields may differ from the CRM's, by a change whose fields are not known; None: they agree."""
        return self.gap[0] if self.gap > self.full else None


UNKNOWN: Final = Record()

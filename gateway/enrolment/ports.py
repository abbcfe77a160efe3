"""What the enrolment service asks of the broker."""

from collections.abc import Sequence
from typing import Protocol

from gateway.enrolment.core.model import RevokedSerial


class Door(Protocol):
    """Where devices come in."""

    def refuse(self, revoked: Sequence[RevokedSerial]) -> None:
        """Let nobody in by one of these certificates; they are all that must be refused, not only the newest.

        Raises BrokerAwayError.
        """
        ...

    def cut(self, device: str) -> None:
        """End the device's connection if it has one. Raises BrokerAwayError."""
        ...

    def hold(self, device: str) -> None:
        """The same, and end every further one within a second until `release`. Raises BrokerAwayError."""
        ...

    def release(self, device: str) -> None:
        """Stop holding."""
        ...

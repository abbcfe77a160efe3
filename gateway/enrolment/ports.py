"""What the enrolment service asks of the broker."""

from typing import Protocol


class Door(Protocol):
    """Where devices come in."""

    def refuse(self, revocation_list_pem: bytes) -> None:
        """Let nobody in by a certificate on this list. Raises BrokerAwayError; the list is in force at its start."""
        ...

    def cut(self, device: str) -> None:
        """End the device's connection if it has one. Raises BrokerAwayError."""
        ...

"""Configuration of the enrolment service, parsed once from the file named on the command line."""

from typing import Final

from msgspec import Struct

from gateway.config import MqttConfig

CERTIFICATE_VALID_S: Final = 30 * 86_400  # s; a stolen tablet that nobody missed is out after a month at the latest
INVITATION_VALID_S_MAX: Final = 30 * 86_400  # s; an invitation that nobody used in a month was lost


class EnrolmentConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One process owns `folder`: keys of the authorities, registry, and the revocation lists that the broker reads.

    `mqtt` is the broker's listener for services. `operators` are the common names that may ask for more than a
    certificate.
    """

    mqtt: MqttConfig
    folder: str
    operators: tuple[str, ...] = ("operator",)
    certificate_valid_s: int = CERTIFICATE_VALID_S

"""Configuration of the enrolment service, parsed once from the file named on the command line."""

from typing import Final

from msgspec import Struct

from gateway.config import MqttConfig

CERTIFICATE_VALID_S: Final = 30 * 86_400  # s; a stolen tablet that nobody missed is out after a month at the latest
INVITATION_VALID_S_MAX: Final = 30 * 86_400  # s; an invitation that nobody used in a month was lost
# s; mosquitto drops a connection that never said CONNECT after 90 s, and looks every 5 s. Until then somebody who had
# shown his certificate before it was revoked may still come in.
PENDING_CONNECTION_S: Final = 100


class EnrolmentConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One process owns `folder`: keys of the authorities, registry, and the revocation lists that the broker reads.

    `mqtt` is the broker's listener for services. `operators` are the common names that may ask for more than a
    certificate. `pending_connection_s` is how long the broker lets a connection wait before its first word.
    """

    mqtt: MqttConfig
    folder: str
    operators: tuple[str, ...] = ("operator",)
    certificate_valid_s: int = CERTIFICATE_VALID_S
    pending_connection_s: int = PENDING_CONNECTION_S

"""What arrives in the agent's inbox: news of the link, and offers. `link` numbers connections."""

from typing import TypeAlias

from msgspec import Struct

from edge_agent.core.sources.offers import Asked, Offered, SourceFailed
from edge_agent.core.updates.renewal import RenewalEvent


class LinkUp(Struct, frozen=True):
    """The broker took the connection. `window` publishes may be open, a packet may have `packet_bytes_max`."""

    link: int
    window: int
    packet_bytes_max: int | None


class LinkDown(Struct, frozen=True):
    """There is no connection, or no longer. `refused`: the broker was there and did not let the device in."""

    link: int
    reason: str
    refused: bool = False


class Answered(Struct, frozen=True):
    """The broker answered a publish; `code` is the MQTT 5 reason code."""

    link: int
    message: int
    code: int


class Subscribed(Struct, frozen=True):
    """The subscription to acknowledgements stands, or was refused."""

    link: int
    code: int


class AckArrived(Struct, frozen=True):
    """The newest acknowledgement document, in bytes."""

    link: int
    document: bytes


class PullArrived(Struct, frozen=True):
    """A request for events that the device still has, or, with an empty document, that it was taken back."""

    link: int
    id: str
    document: bytes


class CertificateArrived(Struct, frozen=True):
    """The answer to a request for the next certificate."""

    link: int
    document: bytes


class BundleAnnounced(Struct, frozen=True):
    """The repository has something newer; `document` is a `contracts.releases.Announcement` in bytes."""

    link: int
    document: bytes


class RenewalNews(Struct, frozen=True):
    """What the making of the next key and request came to."""

    event: RenewalEvent


class Wake(Struct, frozen=True):
    """Nothing but a reason to look again."""


LinkEvent: TypeAlias = (
    LinkUp
    | LinkDown
    | Answered
    | Subscribed
    | AckArrived
    | PullArrived
    | CertificateArrived
    | BundleAnnounced
    | RenewalNews
    | Offered
    | Asked
    | SourceFailed
    | Wake
)

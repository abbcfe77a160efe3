"""What an app says of a person's consent, and hears: the same lines of JSON over every way in.

| request                             | meaning                                                                    |
| ----------------------------------- | -------------------------------------------------------------------------- |
| `{"consent":"grant","person":P}`    | P lets their events be written down and sent                               |
| `{"consent":"refuse","person":P}`   | P does not, or no longer                                                   |
| `{"consent":"show","person":P}`     | asks only                                                                  |

The answer is `{"consent":"granted","decision":17,"waiting":0,"purged":0}`: granted, refused or unknown, the number of
the decision, how many events of P wait in memory, and how many the decision has purged from there. It comes when the
decision is durable, and the key of a person who has refused is destroyed.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from contracts.contract import PERSON_CHARS_MAX
from edge_agent.core.sources.offers import Decided, Wish
from edge_agent.core.sources.session import Ask


class Request(Struct, frozen=True, forbid_unknown_fields=True):
    """One line."""

    consent: Wish
    person: Annotated[str, Meta(min_length=1, max_length=PERSON_CHARS_MAX)]


_DECODER = msgspec.json.Decoder(Request)


def ask_of(line: bytes) -> Ask:
    """Parse a request. Raises the errors of `contracts.malformed`."""
    request = _DECODER.decode(line)
    return Ask(request.person, request.consent)


def is_request(line: bytes) -> bool:
    """Say whether a line means to be one."""
    return line.lstrip().startswith(b'{"consent"')


def answer_of(decided: Decided) -> dict[str, int | str | None]:
    """Return the answer's fields."""
    return {
        "consent": decided.standing,
        "decision": decided.decision,
        "waiting": decided.waiting,
        "purged": decided.purged,
    }

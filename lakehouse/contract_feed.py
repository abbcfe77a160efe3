"""The published contracts as one half of a worker follows them. Not for use from two threads at once."""

import logging
from collections.abc import Callable
from typing import Final

from contracts.contract import Contract
from contracts.errors import ContractError
from lakehouse.ports import Follower, Message
from lakehouse.registry import Registry

HEARD_MAX: Final = 1_000  # messages of one look; more are left for the next one

_log = logging.getLogger(__name__)


class ContractFeed:
    """Follows the contracts topic. Errors: LogUnavailableError."""

    def __init__(self, follower: Follower, note: Callable[[Exception], None]) -> None:
        self._follower, self._note = follower, note
        self._begun = False
        self.registry = Registry()
        self.taken = 0  # messages; dictionaries too

    def catch_up(self) -> list[Contract]:
        """Follow to the present end of the topic; return the contracts that are new, in their order."""
        if not self._begun:
            self._follower.rewind({})
            self._begun = True
        return self._take(self._follower.catch_up())

    def hear(self) -> list[Contract]:
        """Return the contracts that are new among what has come; nobody is asked, so the end of the topic may be later.

        Asking waits for the broker's answer to the fetch under way, which it gives when something comes or time is up.
        """
        return self._take(self._follower.poll(HEARD_MAX, 0.0)) if self._begun else self.catch_up()

    def contract(self, name: str) -> Contract | None:
        """Return the newest version of a contract, after a look at the topic if there is none yet."""
        found = self.registry.newest.get(name)
        if found is None:
            self.catch_up()
            found = self.registry.newest.get(name)
        return found

    def close(self) -> None:
        """Release connections."""
        self._follower.close()

    def _take(self, messages: list[Message]) -> list[Contract]:
        found: list[Contract] = []
        self.taken += len(messages)
        for message in messages:
            try:
                contract = self.registry.take((message.key or b"").decode("utf-8", "replace"), message.value)
            except ContractError as error:
                self._note(error)
                continue
            if contract is not None:
                found.append(contract)
        return found

"""Carries out what `core.renewal` wishes: a child for the key, files for the certificate, the agent's own connection.

The agent's loop owns it and calls it from one thread. It tells it what happens (`tick` when `next_due_ms` is reached,
`link_up`, `link_refused`, `answered` for a document on `contracts.topics.certificate`, and `on` for the events that the
child puts into the agent's inbox), asks it for the `credentials` of every connection, and gives it two callbacks.
"""

import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from contracts.ports import Clock
from edge_agent.adapters.identity import Generation, IdentityFolder
from edge_agent.core.updates import renewal
from edge_agent.core.updates.renewal import (
    Answered,
    ConnectWithNext,
    Discard,
    Failed,
    LinkRefused,
    LinkUp,
    Made,
    MakeRequest,
    Promote,
    Publish,
    RenewalEvent,
    Store,
    Stored,
    Tick,
    Wish,
)
from edge_agent.errors import IdentityError

CHILD_TIMEOUT_S: Final = 50.0  # s; below the core's patience, so that no child outlives the wish for it
ERROR_CHARS_MAX: Final = 200

_log = logging.getLogger(__name__)

Put = Callable[[RenewalEvent], None]


class Rotation:
    """The device's certificates over time. Raises IdentityError when the device is not enrolled."""

    def __init__(
        self,
        folder: Path,
        device: str,
        *,
        put: Put,
        publish: Callable[[bytes], None],
        reconnect: Callable[[], None],
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self._folder, self._device = folder, device
        self._identity = IdentityFolder(folder)
        self._put, self._publish, self._reconnect = put, publish, reconnect
        self._clock, self._random = clock, random
        present, following = self._identity.current(), self._identity.following()
        if present is None:
            raise IdentityError(f"identity {folder}: {device} is not enrolled: give it an invitation")
        self._present, self._next = present, following
        self._connecting = present
        self._state = (
            renewal.begin(present.validity, random)
            if following is None
            else renewal.begin_with_next(present.validity, following.validity, random)
        )

    @property
    def last_error(self) -> str:
        """Why the last attempt failed; empty after one that did not."""
        return self._state.last_error

    def credentials(self) -> Generation:
        """Return the certificate and key for the connection that begins now."""
        tries_next = renewal.connects_with_next(self._state) and self._next is not None
        self._connecting = self._next if tries_next and self._next is not None else self._present
        return self._connecting

    def next_due_ms(self) -> int | None:
        """Return when to call `tick`, Unix time in milliseconds; None when never."""
        return renewal.next_due_ms(self._state)

    def tick(self) -> None:
        """Time has passed."""
        self.on(Tick())

    def link_up(self) -> None:
        """The broker took the connection that the last `credentials` opened."""
        self.on(LinkUp(by_next=self._connecting is not self._present))

    def link_refused(self) -> None:
        """The broker was reached and did not take the connection that the last `credentials` opened."""
        if self._connecting is not self._present:
            self.on(LinkRefused())

    def answered(self, document: bytes) -> None:
        """A document arrived on the device's certificate topic."""
        self.on(Answered(document))

    def on(self, event: RenewalEvent) -> None:
        """Take an event, also those from the inbox, and do what follows from it."""
        self._state, wishes = renewal.step(self._state, event, self._clock.now_ms(), self._random)
        for wish in wishes:
            self._grant(wish)

    def _grant(self, wish: Wish) -> None:
        match wish:
            case MakeRequest():
                threading.Thread(target=self._make, name="renewal", daemon=True).start()
            case Publish(request=request):
                self._publish(request)
            case Store(document=document):
                self._store(document)
            case ConnectWithNext():
                self._reconnect()
            case Promote():
                self._promote()
            case Discard():
                self._discard()

    def _make(self) -> None:
        import subprocess  # once in weeks; 1 MB that the agent need not have until then

        command = (sys.executable, "-m", "edge_agent.enrolment", "request")
        try:
            done = subprocess.run(
                [*command, "--device", self._device, "--folder", str(self._folder)],
                stdin=subprocess.DEVNULL, capture_output=True, timeout=CHILD_TIMEOUT_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            self._put(Failed(f"key and request: {error}"))
            return
        if done.returncode != 0:
            self._put(Failed(f"key and request: {done.stderr.decode(errors='replace')[-ERROR_CHARS_MAX:].strip()}"))
            return
        self._put(Made(done.stdout.strip()))

    def _store(self, document: bytes) -> None:
        try:
            self._next = self._identity.store(document)
        except (IdentityError, OSError) as error:
            _log.warning("next certificate: %s", error)
            self.on(Failed(str(error)))
        else:
            self.on(Stored(self._next.validity))

    def _promote(self) -> None:
        try:
            self._present = self._connecting = self._identity.promote()
        except (IdentityError, OSError) as error:
            # It is tried again at the next start, which finds the next certificate still there.
            _log.error("next certificate: opened a connection and cannot be taken into use: %s", error)
            return
        self._next = None
        _log.info("certificate renewed, good until %d", self._present.validity.not_after_ms)

    def _discard(self) -> None:
        self._next = None
        _log.warning("next certificate: %s", self._state.last_error)
        try:
            self._identity.discard()
        except OSError as error:
            _log.warning("next certificate: its files stay until the next attempt: %s", error)

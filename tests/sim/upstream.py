"""What lies behind a device's link: broker, gateway, log and lake, each of which forgets, repeats and restarts.

A batch goes broker -> gateway -> log -> lake. The gateway lets go of the broker's copy only once the log has it; the
lake commits what it finds in the log and where it was in one step; receipts come back the same way, and the broker
keeps the newest.
"""

import random
from collections.abc import Callable
from typing import Final

from contracts import watermark
from tests.edge_agent.plant import Lake
from tests.sim.faults import Fault

GATEWAY_RETURNS_S: Final = 2.0  # s
ROUND_S_MAX: Final = 1.0  # s; between a batch in the log and its commit

Later = Callable[[Callable[[], None], float], None]
Strikes = Callable[[Fault], bool]


class Upstream:
    """`later` calls something after a random part of so many seconds; `strikes` says whether a fault is due now."""

    def __init__(
        self, lake: Lake, rng: random.Random, later: Later, strikes: Strikes, tell: Callable[[bytes], None]
    ) -> None:
        self.lake = lake
        self.retained: bytes | None = None
        self.lake_stands = False
        self._rng = rng
        self._later = later
        self._strikes = strikes
        self._tell = tell
        self._wipes = 0
        self._gateway_run = 0
        self._log: list[bytes] = []
        self._committed_upto = 0  # in the log
        self._round_is_due = False
        self._said: list[bytes] = []

    def wipe_broker(self) -> None:
        """Let the broker forget what it holds for the gateway, and the newest receipt."""
        self._wipes += 1
        self.retained = None

    def restart_gateway(self) -> None:
        """Let the gateway begin anew; what it had not put into the log comes again from the broker."""
        self._gateway_run += 1

    def take(self, batch: bytes) -> None:
        """Hold a batch at the broker until the gateway has put it into the log."""
        wipes = self._wipes
        slow = self._strikes(Fault.REORDERED)
        self._later(lambda: self._to_gateway(batch, wipes), 8.0 if slow else 0.2)
        if self._strikes(Fault.DUPLICATE):
            self._later(lambda: self._to_gateway(batch, wipes), 4.0)

    def _to_gateway(self, batch: bytes, wipes: int) -> None:
        if wipes == self._wipes:
            run = self._gateway_run
            self._later(lambda: self._to_log(batch, wipes, run), 0.2)

    def _to_log(self, batch: bytes, wipes: int, run: int) -> None:
        if run != self._gateway_run:
            self._later(lambda: self._to_gateway(batch, wipes), GATEWAY_RETURNS_S)
            if self._rng.random() < 0.5:
                return  # It had not reached the log; else it had, and the broker was not told.
        self._log.append(batch)
        self._need_round()

    def _need_round(self, after_s: float = ROUND_S_MAX) -> None:
        if not self._round_is_due:
            self._round_is_due = True
            self._later(self._round, after_s)

    def _round(self) -> None:
        self._round_is_due = False
        if self.lake_stands or self._strikes(Fault.LAKE_RESTART):
            self._need_round(3.0)  # What it has read so far it reads again.
            return
        for batch in self._log[self._committed_upto :]:
            self.lake.take(batch)
        self._committed_upto = len(self._log)
        if not self._strikes(Fault.COMMIT_UNSAID):
            self._say()

    def _say(self) -> None:
        document = watermark.encode(self.lake.ack())
        self._said.append(document)
        self._later(lambda: self._receipt(document), 0.5)
        if self._strikes(Fault.RECEIPT_TWICE):
            self._later(lambda: self._receipt(document), 3.0)
        if self._strikes(Fault.RECEIPT_OLD):
            older = self._rng.choice(self._said)
            self._later(lambda: self._receipt(older), 3.0)

    def _receipt(self, document: bytes) -> None:
        self.retained = document
        self._tell(document)

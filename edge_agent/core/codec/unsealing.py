"""What the spool holds of a stream, as events again."""

import logging

from contracts import microbatch
from contracts.contract import Contract
from contracts.errors import BatchError
from edge_agent.core.codec.payload import PayloadDecoder
from edge_agent.core.events import Events, Mask
from edge_agent.core.profile import Profile, SpoolPart
from edge_agent.core.spool.replay import Replayed

_log = logging.getLogger(__name__)


class Unsealer:
    """Reads batches and stored blocks of one contract."""

    def __init__(self, contract: Contract, profile: Profile, dictionary: bytes = b"") -> None:
        self.contract = contract
        self._profile = profile
        self._decoder = PayloadDecoder(contract, dictionary, arrays=profile.arrays)

    def events(self, replayed: Replayed) -> tuple[Events, Mask, Mask]:
        """Return events of the spool in their order, without their lines; which of them travelled; which windows count.

        What has rotted is left out. Raises nothing for bad bytes.
        """
        parts: list[SpoolPart] = []
        for batch in replayed.batches:
            try:
                header, payload = microbatch.parse(batch)
                rows = self._decoder.decode(bytes(payload), header.rows, header.raw_bytes, header.codec)
            except BatchError as error:
                _log.error("%s %d in the spool: %s", self.contract.id, replayed.first_seq, error)
                continue
            parts.append(SpoolPart(rows, True, True))
        for ref, block in replayed.stored:
            try:
                parts.append(SpoolPart(self._decoder.decode(block, ref.rows, ref.raw_bytes), False, ref.windowed))
            except BatchError as error:
                _log.error("%s %d in the spool: %s", self.contract.id, replayed.first_seq, error)
        return self._profile.merged(self.contract, [part for part in parts if len(part.rows.seqs)])

"""What the spool holds of a stream, as events again."""

import logging
from collections.abc import Iterable

from msgspec import Struct

from contracts import microbatch
from contracts.contract import Contract, fingerprint
from contracts.errors import BatchError, BatchFormatError
from contracts.microbatch import Codec
from edge_agent.core.codec import record_batch
from edge_agent.core.codec.payload import PayloadDecoder, Rows, dictionary_id
from edge_agent.core.events import Events, Mask
from edge_agent.core.profile import Profile, SpoolPart
from edge_agent.core.spool.record import StoredRef
from edge_agent.core.spool.replay import Replayed

_log = logging.getLogger(__name__)


class Form(Struct, frozen=True):
    """What rows of one contract are packed by: a version of it and its zstd dictionary, empty for none."""

    contract: Contract
    dictionary: bytes = b""


class Unsealer:
    """Reads batches and stored blocks of one contract, also those of `earlier` forms that the spool may still hold."""

    def __init__(
        self, contract: Contract, profile: Profile, dictionary: bytes = b"", earlier: Iterable[Form] = ()
    ) -> None:
        self.contract = contract
        self._profile = profile
        self._fingerprint = fingerprint(contract)
        self._decoders: dict[tuple[int, int], _FormDecoder] = {}  # by fingerprint and dictionary
        for form in (Form(contract, dictionary), *earlier):
            decoder = _FormDecoder(form, contract, arrays=profile.arrays)
            for number in (dictionary_id(form.dictionary), 0):  # rows that no dictionary was worth it for have none
                self._decoders.setdefault((fingerprint(form.contract), number), decoder)

    def events(self, replayed: Replayed) -> tuple[Events, Mask, Mask]:
        """Return events of the spool in their order, without their lines; which of them travelled; which windows count.

        What has rotted is left out. Raises nothing for bad bytes.
        """
        parts: list[SpoolPart] = []
        for batch in replayed.batches:
            try:
                rows = self.batch(batch)
            except BatchError as error:
                _log.error("%s %d in the spool: %s", self.contract.id, replayed.first_seq, error)
                continue
            parts.append(SpoolPart(rows, True, True))
        for ref, block in replayed.stored:
            try:
                parts.append(SpoolPart(self.stored(ref, block), False, ref.windowed))
            except BatchError as error:
                _log.error("%s %d in the spool: %s", self.contract.id, replayed.first_seq, error)
        return self._profile.merged(self.contract, [part for part in parts if len(part.rows.seqs)])

    def batch(self, data: bytes) -> Rows:
        """Return the rows of a batch. Raises BatchError."""
        header, payload = microbatch.parse(data)
        decoder = self._decoder(header.fingerprint, header.dictionary_id)
        return decoder.decode(bytes(payload), header.rows, header.raw_bytes, header.codec)

    def stored(self, ref: StoredRef, block: bytes) -> Rows:
        """Return the rows of a stored block. Raises BatchError."""
        return self._decoder(ref.fingerprint or self._fingerprint, 0).decode(block, ref.rows, ref.raw_bytes)

    def _decoder(self, form: int, dictionary: int) -> "_FormDecoder":
        found = self._decoders.get((form, dictionary))
        if found is None:
            raise BatchFormatError(
                f"contract {self.contract.id}: no bundle on this device has form {form:#x} with dictionary {dictionary}"
            )
        return found


class _FormDecoder:
    """Gives rows of an earlier form the columns of the present one; made ready when it is first needed."""

    def __init__(self, form: Form, present: Contract, *, arrays: bool) -> None:
        self._form, self._present, self._arrays = form, present, arrays
        self._decoder: PayloadDecoder | None = None

    def decode(self, payload: bytes, rows: int, raw_bytes: int, codec: int = Codec.ARROW_ZSTD) -> Rows:
        """Return the rows. Raises BatchFormatError, also when they lack what the present form requires."""
        if self._decoder is None:
            self._decoder = PayloadDecoder(self._form.contract, self._form.dictionary, arrays=self._arrays)
        found = self._decoder.decode(payload, rows, raw_bytes, codec)
        if self._form.contract is self._present:
            return found
        types = {field.name: (field.type, field.required) for field in self._form.contract.fields}
        columns: dict[str, record_batch.Column] = {}
        for field in self._present.fields:
            if types.get(field.name) in ((field.type, field.required), (field.type, True)):
                column = found.columns[field.name]
                columns[field.name] = column if field.required else list(column)
            elif field.required:
                raise BatchFormatError(
                    f"contract {self._present.id}@{self._present.version}: rows of version "
                    f"{self._form.contract.version} have no such {field.name}"
                )
            else:
                columns[field.name] = [None] * rows
        return Rows(found.seqs, columns)

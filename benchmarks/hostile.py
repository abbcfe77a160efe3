"""Hostile micro-batches: sound ones with flipped bits, cuts, splices and lies, put to every reader of ours.

A wound goes into the sealed batch, into its compressed payload, or into what the payload holds; the latter two are
sealed again, so that they get past the checksum. Whatever it is, a reader answers with a value or with a typed error;
any other exception leaves `fuzz` and says with which seed and number it came about.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

import zstandard
from msgspec import Struct
from msgspec.structs import replace

from contracts import microbatch
from contracts.contract import Contract
from contracts.errors import BatchError
from contracts.microbatch import BATCH_BYTES_MAX, HEADER_BYTES, RAW_BYTES_MAX, Codec, Header
from edge_agent.core.codec.payload import PayloadDecoder
from lakehouse.decode import Arrived, decode

WOUNDS_MAX: Final = 4  # per input; more make it garbage that the first check refuses
NASTY: Final = (0, 1, 2, 7, 15, 16, 127, 128, 254, 255)  # bytes at which lengths, counts, modes and varints turn
NASTY_COUNTS: Final = (0, 1, 2, 2**16, 2**31 - 1, 2**31, 2**32 - 1, RAW_BYTES_MAX, RAW_BYTES_MAX + 1)
TOLD_EVERY: Final = 50_000  # inputs


class Sound(Struct, frozen=True):
    """A sealed batch to be spoiled, with its contract and the dictionary that it names."""

    contract: Contract
    dictionary: bytes
    batch: bytes


class Tally(Struct, frozen=True):
    """How inputs ended, per reader: `header`, `device`, `lake`; read or refused."""

    inputs: int
    read: dict[str, int]
    refused: dict[str, int]


def fuzz(sound: Sequence[Sound], inputs: int, seed: int, tell: Callable[[str], None] = lambda _: None) -> Tally:
    """Put this many spoiled batches to the readers and count how they end."""
    rng = Random(seed)
    read: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    readers = [(one, PayloadDecoder(one.contract, one.dictionary), _dictionaries(one)) for one in sound]
    for number in range(inputs):
        one, device, dictionaries = rng.choice(readers)
        batch = _spoiled(one, sound, rng)
        try:
            _put(batch, one, device, dictionaries, read, refused)
        except Exception as error:
            error.add_note(f"input {number} of seed {seed}: {batch.hex()[:400]}")
            raise
        if number % TOLD_EVERY == TOLD_EVERY - 1:
            tell(f"hostile batches: {number + 1} of {inputs} ended in a value or a typed error")
    return Tally(inputs, dict(read), dict(refused))


def _put(
    batch: bytes,
    one: Sound,
    device: PayloadDecoder,
    dictionaries: dict[int, zstandard.ZstdCompressionDict],
    read: Counter[str],
    refused: Counter[str],
) -> None:
    try:
        header, payload = microbatch.parse(batch)
    except BatchError:
        refused["header"] += 1
        return
    read["header"] += 1
    try:
        device.decode(bytes(payload), header.rows, header.raw_bytes, header.codec)
        read["device"] += 1
    except BatchError:
        refused["device"] += 1
    decoded, turned_down = decode([Arrived("device", "t/0/0", header, payload, batch)], one.contract, dictionaries)
    decoded.rows.validate(full=True)
    if len(decoded.batches) + len(turned_down) != 1:
        raise AssertionError(f"expected the batch read or refused, found {len(decoded.batches)}, {len(turned_down)}")
    (refused if turned_down else read)["lake"] += 1


def _dictionaries(one: Sound) -> dict[int, zstandard.ZstdCompressionDict]:
    if not one.dictionary:
        return {}
    known = zstandard.ZstdCompressionDict(one.dictionary)
    return {known.dict_id(): known}


def _spoiled(one: Sound, sound: Sequence[Sound], rng: Random) -> bytes:
    other = rng.choice(sound)
    depth = rng.random()
    if depth < 0.1:
        return _wounded(one.batch, other.batch, rng)
    header, payload = microbatch.parse(one.batch)
    if depth < 0.4:
        return _sealed(_lying(header, rng), _wounded(bytes(payload), other.batch[HEADER_BYTES:], rng))
    packed = header.codec == Codec.PACKED_ZSTD
    raw = _wounded(_raw(one), _raw(other), rng)
    form = zstandard.FORMAT_ZSTD1_MAGICLESS if packed else zstandard.FORMAT_ZSTD1
    parameters = zstandard.ZstdCompressionParameters.from_level(1, format=form)
    header = replace(header, raw_bytes=len(raw))
    lying = _lying(header, rng) if rng.random() < 0.2 else header
    # Without its dictionary: the frame names none, so what it holds is read alike.
    return _sealed(lying, zstandard.ZstdCompressor(compression_params=parameters).compress(raw))


def _raw(one: Sound) -> bytes:
    header, payload = microbatch.parse(one.batch)
    packed = header.codec == Codec.PACKED_ZSTD
    form = zstandard.FORMAT_ZSTD1_MAGICLESS if packed else zstandard.FORMAT_ZSTD1
    known = zstandard.ZstdCompressionDict(one.dictionary) if packed and one.dictionary else None
    reader = zstandard.ZstdDecompressor(dict_data=known, format=form)
    return reader.decompress(bytes(payload), max_output_size=max(1, header.raw_bytes))


def _sealed(header: Header, payload: bytes) -> bytes:
    return microbatch.seal(header, payload[: BATCH_BYTES_MAX - HEADER_BYTES])


def _lying(header: Header, rng: Random) -> Header:
    """Return a header in which one count is another; still one that can be sealed."""
    match rng.randrange(5):
        case 0:
            return replace(header, rows=min(header.span, rng.choice((*NASTY_COUNTS, header.rows + 1))))
        case 1:
            return replace(header, raw_bytes=min(RAW_BYTES_MAX, rng.choice(NASTY_COUNTS)))
        case 2:
            return replace(header, codec=rng.choice(tuple(Codec)))
        case 3:
            return replace(header, span=microbatch.SPAN_MAX, rows=rng.choice((1, 10**5, 10**6, microbatch.SPAN_MAX)))
        case _:
            return header


def _wounded(data: bytes, other: bytes, rng: Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.randint(1, WOUNDS_MAX)):
        at = rng.randrange(len(found) + 1)
        match rng.randrange(7):
            case 0 if at < len(found):
                found[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(found):
                found[at] = rng.choice(NASTY)
            case 2:
                found[at : at + rng.choice((1, 2, 4, 8))] = b""
            case 3:
                found[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8)))
            case 4:
                del found[at:]
            case 5:
                first = rng.randrange(len(other) + 1)
                found[at : at + rng.randrange(64)] = other[first : first + rng.randrange(64)]
            case _:
                value = rng.choice((*NASTY_COUNTS, 2**63 - 1, 2**63, 2**64 - 1))
                width = rng.choice((4, 8))
                found[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")
    return bytes(found)

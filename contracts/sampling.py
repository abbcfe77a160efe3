"""Samples that anyone can draw again: whether an event belongs to one follows from its identity alone.

Each event has a draw of 53 bits per purpose; a sample of a fraction takes the events whose draw lies below that part
of the range. So a restart decides alike, samples for different purposes are independent, and a sample of a larger
fraction contains the smaller one. The draw is the output function of SplitMix64 (Steele, Lea, Flood: Fast Splittable
Pseudorandom Number Generators, OOPSLA 2014) with the event's number as the place in the sequence.
"""

import hashlib
from typing import Final

import msgspec

DROPPED_SAMPLE: Final = "dropped-sample"  # purpose of the sample of events that do not travel otherwise
DRAW_BITS: Final = 53  # a fraction, which has as many, then says exactly which draws are below it
WORD: Final = 2**64 - 1
INCREMENT: Final = 0x9E3779B97F4A7C15
MULTIPLIERS: Final = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
SHIFTS: Final = (30, 27, 31)


def seed_of(origin: str, epoch: int, stream: str, purpose: str) -> int:
    """Return the 64 bits that draws of a stream begin from: the head of SHA-256 over the names as a JSON array."""
    named = msgspec.json.encode([origin, epoch, stream, purpose])
    return int.from_bytes(hashlib.sha256(named).digest()[:8], "big")


def draw(seed: int, seq: int) -> int:
    """Return an event's draw, 0 to 2**53 - 1."""
    word = (seed + (seq + 1) * INCREMENT) & WORD
    word = ((word ^ (word >> SHIFTS[0])) * MULTIPLIERS[0]) & WORD
    word = ((word ^ (word >> SHIFTS[1])) * MULTIPLIERS[1]) & WORD
    return (word ^ (word >> SHIFTS[2])) >> (64 - DRAW_BITS)


def draws_below(fraction: float) -> int:
    """Return the first draw that a sample of this fraction does not take. Raises ValueError outside 0 to 1."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"sample fraction {fraction}: expected 0 to 1")
    return int(fraction * 2**DRAW_BITS)

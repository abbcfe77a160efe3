"""Detectors of anomalies as the agent keeps them: scores for chunks of readings, and bytes that outlive a restart.

A saved detector is a CRC32 (4 bytes, little-endian) over what follows it, one MessagePack map of the detector's fields;
an array in it is a pair of its shape and its float64 values, little-endian, in row order.
"""

import zlib
from typing import Any, Final, Protocol, Self, TypeAlias, cast, get_origin

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.malformed import MALFORMED
from edge_agent.core.filter.extremes import Values
from edge_agent.core.filter.level import LevelShift
from edge_agent.core.filter.novelty import Novelty
from edge_agent.errors import DetectorStateError

CRC_BYTES: Final = 4
# A detector of 1,000 sensors that learns from 400 rows takes 3.2 MB; more does not belong on a device.
SAVED_BYTES_MAX: Final = 4 * 2**20

AnyDetector: TypeAlias = Novelty | LevelShift


class Detector(Protocol):
    """A value that scores readings one after the other, without a look ahead."""

    def advance(self, readings: NDArray[np.floating]) -> tuple[Self, Values]:
        """Return the detector after these readings, and a score for each: (n, sensors) -> (n,), NaN for no opinion."""
        ...


def save(detector: AnyDetector) -> bytes:
    """Return the detector as bytes: one that is loaded from them gives the same scores, bit for bit."""
    body = msgspec.msgpack.encode(detector, enc_hook=_plain)
    return zlib.crc32(body).to_bytes(CRC_BYTES, "little") + body


def load(data: bytes) -> AnyDetector:
    """Return the detector that was saved. Raises DetectorStateError."""
    if not CRC_BYTES < len(data) <= SAVED_BYTES_MAX:
        raise DetectorStateError(
            f"saved detector: expected {CRC_BYTES + 1} to {SAVED_BYTES_MAX} bytes, found {len(data)}: "
            "delete it, and the detector learns anew"
        )
    body = data[CRC_BYTES:]
    if zlib.crc32(body) != int.from_bytes(data[:CRC_BYTES], "little"):
        raise DetectorStateError("saved detector: its checksum differs: delete it, and the detector learns anew")
    try:
        detector = msgspec.msgpack.decode(body, type=AnyDetector, dec_hook=_rich)
    except MALFORMED as error:
        raise DetectorStateError(
            f"saved detector: expected the fields of this version, found others ({error}): "
            "delete it, and the detector learns anew"
        ) from error
    if not detector.is_sound():
        raise DetectorStateError(
            "saved detector: its parts do not fit its settings: delete it, and the detector learns anew"
        )
    return cast(AnyDetector, detector)


def _plain(value: object) -> tuple[tuple[int, ...], bytes]:
    if not isinstance(value, np.ndarray):
        raise NotImplementedError(f"{type(value)} has no saved form")
    return value.shape, value.astype("<f8").tobytes()


def _rich(kind: type, value: Any) -> Values:
    if get_origin(kind) is not np.ndarray:
        raise NotImplementedError(f"{kind} has no saved form")
    shape, data = msgspec.convert(value, tuple[tuple[int, ...], bytes])
    array: Values = np.frombuffer(data, dtype="<f8").astype(np.float64).reshape(shape)
    return array

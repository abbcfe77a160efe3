"""A detector as the filter's model: it scores events by what came before them, where a model sees one at a time."""

import numpy as np
from numpy.typing import NDArray

from edge_agent.core.filter.detection import AnyDetector, load, save


class DetectorScorer:
    """Implements `ports.Scorer` over a detector, which every call carries on.

    Every row counts as a reading, in the order of the calls; a row without any number is passed over. A chunk may
    therefore be filled up with NaN and not with zeros, or has to be of one row. `ports.Scorer` promises chunks of one
    shape; here any number of rows will do.
    """

    def __init__(self, detector: AnyDetector) -> None:
        self._detector = detector

    @classmethod
    def resumed(cls, saved: bytes) -> "DetectorScorer":
        """Return a scorer that goes on where `saved` was taken. Raises DetectorStateError."""
        return cls(load(saved))

    def scores(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return one score per row, shape (n, sensors) -> (n,); NaN, which the filter keeps, for no opinion."""
        self._detector, scores = self._detector.advance(rows)
        return scores.astype(np.float32)

    def saved(self) -> bytes:
        """Return the detector as it is after the last call."""
        return save(self._detector)

"""Spoiled batches end in a value or a typed error, in every reader. The million is in `benchmarks.edge_codec`."""

import numpy as np

from benchmarks import crm_events
from benchmarks.edge_codec import Workload, sound_batches
from benchmarks.hostile import fuzz
from infra.dictionaries import Rows, train

ROWS = 600
INPUTS = 1_500


def test_spoiled_batches_end_in_a_value_or_a_typed_error() -> None:
    seqs = np.arange(0, 3 * ROWS, 3, dtype=np.int64)
    rows = Rows(seqs, crm_events.columns_of(crm_events.events(ROWS, 1)))
    dictionary = train(crm_events.CONTRACT, [rows]).data
    sound = sound_batches([Workload(crm_events.CONTRACT, (rows,), dictionary)])
    tally = fuzz(sound, INPUTS, seed=20_260_105)
    assert tally.inputs == INPUTS
    # Some of every kind, or the wounds would not reach where they are meant to.
    assert all(tally.read[reader] > INPUTS / 100 for reader in ("header", "device", "lake"))
    assert all(tally.refused[reader] > INPUTS / 100 for reader in ("header", "device", "lake"))

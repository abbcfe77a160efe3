"""The register of decisions and the keys of people's rows: limits, damage, and what is left of a key that went."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.ranges import RangeSet
from edge_agent.adapters.disk import FolderDisk
from edge_agent.core.consent import register
from edge_agent.core.consent.pseudonyms import Pseudonyms
from edge_agent.core.consent.reckoning import found_in
from edge_agent.core.consent.register import Register
from edge_agent.core.sources.offers import Outcome, Wish
from edge_agent.core.spool.record import BatchRef, Meta, StoredRef
from edge_agent.errors import ConsentError
from tests.edge_agent.consent_ground import Ground
from tests.edge_agent.consenting import (
    PSEUDONYMS,
    key_files,
    register_of,
)


@given(st.binary(max_size=60), st.integers(0, 400), st.integers(1, 255))
def test_a_register_that_was_changed_is_not_followed(junk: bytes, at: int, flip: int) -> None:
    whole = register.encode(register.granted(Register(), "p", 7, {"visits": 3}, 5), PSEUDONYMS)
    assert register.decode(whole, PSEUDONYMS).open[0].waited == {"visits": 3}
    at %= len(whole)
    changed = whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
    for data in (junk, changed, whole[:at]):
        found = None
        with contextlib.suppress(ConsentError):
            found = register.decode(data, PSEUDONYMS)
        assert found in (None, register.decode(whole, PSEUDONYMS))
    with pytest.raises(ConsentError, match="put back the file or the key"):
        register.decode(whole, Pseudonyms(b"another key"))


def test_a_register_has_limits_and_a_refusal_is_taken_beyond_that_of_open_decisions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(register, "PERSONS_MAX", 2)
    monkeypatch.setattr(register, "OPEN_MAX", 2)
    ground = Ground()
    assert ground.decide(Wish.GRANT, "a").outcome is Outcome.TAKEN
    assert ground.decide(Wish.GRANT, "b").outcome is Outcome.TAKEN
    assert ground.decide(Wish.GRANT, "c").code == "consent_full"
    assert ground.decide(Wish.REFUSE, "a").outcome is Outcome.TAKEN
    assert ground.decide(Wish.GRANT, "a").code == "consent_full"
    ground.desk.destroy_rest()
    assert len(key_files(ground.disk)) == 1


def test_a_key_that_was_lost_is_replaced_and_its_rows_are_not_called_refused() -> None:
    ground = Ground()
    ground.decide(Wish.GRANT)
    (name,) = key_files(ground.disk)
    ground.disk.files[name] = b"rot"
    after = Ground(ground.disk)
    (entry,) = after.desk.register.entries.values()
    assert entry.key in after.keys
    assert after.keys.withdrawn == frozenset()
    assert register_of(after.disk) == after.desk.register


def test_a_batch_counts_to_the_spool_until_the_lake_has_it() -> None:
    refs = tuple(BatchRef("visits", first, 10, 5, 100, key) for first, key in ((0, 7), (10, 8), (20, 7), (30, 7)))
    stored = tuple(
        StoredRef("visits", first, 10, first + 3, 50, 60, 0, False, key=key) for first, key in ((0, 7), (10, 8))
    )
    meta = Meta(0, {}, batches=refs, stored=stored)
    committed: dict[str, RangeSet] = {"visits": ((0, 20), (30, 40))}
    found = found_in([meta], 7, committed, {"visits": ((30, 40),)})
    assert (found.spool, found.ring) == ({"visits": 10}, {"visits": 8})
    assert [(damage.first_seq, damage.rows, damage.withdrawn) for damage in found.damages] == [(20, 5, True)]


def test_a_file_is_overwritten_where_it_lies_before_it_goes(tmp_path: Path) -> None:
    disk = FolderDisk(tmp_path)
    disk.replace("person-1.key", b"secret" * 10)
    with open(tmp_path / "person-1.key", "rb") as opened:
        disk.shred("person-1.key")
        left = opened.read()
    assert len(left) == 60
    assert b"secret" not in left
    assert not (tmp_path / "person-1.key").exists()
    disk.shred("person-1.key")
    disk.close()

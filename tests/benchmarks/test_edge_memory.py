"""What is measured of a device's memory, in a short run of each kind."""

import os

import pytest

from benchmarks.device.cgroup import ROOT
from benchmarks.edge_memory import cgroup_ok, measure

pytestmark = pytest.mark.stack

has_cgroups = pytest.mark.skipif(
    os.geteuid() != 0 or not ((ROOT / "memory").is_dir() or (ROOT / "cgroup.controllers").exists()),
    reason="a memory cgroup takes root and a mounted controller",
)


def test_a_lite_agent_is_sampled_while_it_runs() -> None:
    said: list[str] = []
    found = measure("lite", 10.0, said.append)
    assert [at for at, _ in found["samples"]] == sorted(at for at, _ in found["samples"])
    assert 5.0 < min(value for _, value in found["samples"]) <= found["median_mb"] <= found["max_mb"] < 60.0
    assert found["events_per_s"] > 0


@has_cgroups
def test_an_agent_gets_through_within_its_limit_and_not_within_a_tenth_of_it() -> None:
    assert cgroup_ok(96, 3.0)
    assert not cgroup_ok(10, 3.0)
    assert not list(ROOT.glob("**/fieldlake-*"))

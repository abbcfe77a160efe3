"""What a process does for its memory."""

import ctypes
import subprocess
import sys

import pytest

from edge_agent.adapters.process import TRIM_S, Trimming
from tests.edge_agent.plant import ROOT

# Leaves every second block of 4 KB free, and says by how many KB giving them back makes the process smaller.
HOLES = """
import ctypes
from edge_agent.adapters import process
def resident_kb():
    return int(open("/proc/self/statm").read().split()[1]) * 4
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
blocks = [libc.malloc(16_384) for _ in range(2_000)]
for block in blocks:
    ctypes.memset(ctypes.c_void_p(block), 1, 16_384)
for block in blocks[::2]:
    libc.free(block)
process.TRIM_S = 0.0
before = resident_kb()
process.Trimming().turn()
print(before - resident_kb())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc keeps what was freed so long")
def test_memory_that_lies_free_goes_back_to_the_machine() -> None:
    run = subprocess.run([sys.executable, "-c", HOLES], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(run.stdout) > 4_000


def test_it_is_looked_for_now_and_then() -> None:
    now_s, given_back = 100.0, list[float]()
    trimming = Trimming(lambda: now_s)
    trimming._trim = lambda _: given_back.append(now_s)
    for step in range(4 * int(TRIM_S)):
        now_s = 100.0 + step
        trimming.turn()
    assert given_back == [100.0 + TRIM_S * turn for turn in (1, 2, 3)]

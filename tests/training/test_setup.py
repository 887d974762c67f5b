"""What is set up before a run's first step, where no other test sees it."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
import sys
import torch
from convolab.training.setup import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
for turn in range(12):
    if turn == 4:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    large, small = torch.ones(2**24), torch.ones(2**20)  # 64 MB and 4 MB
    del large, small
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_memory_that_a_large_tensor_gave_back_is_not_filled_with_zeros_again() -> None:
    kept, given_back = (
        int(subprocess.check_output([sys.executable, "-c", FAULTS, how])) for how in ("kept", "given back")
    )
    assert given_back > 200  # at the least a fault for every 2 MB; 8 x 16384 of them with small pages
    assert kept < given_back / 4

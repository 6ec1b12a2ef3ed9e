"""Freed memory is kept: seen in the pages that the kernel has to hand out."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from policies.memory import keep_freed_memory
if {keeps}:
    keep_freed_memory()
for number in range(25):
    if number == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(25_000_000)  # 100 MB: 24,400 pages
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize(("keeps", "least", "most"), [(False, 5 * 24_000, 6 * 25_000), (True, 0, 2_000)])
def test_freed_memory_is_kept(keeps: bool, least: int, most: int) -> None:
    command = [sys.executable, "-c", PROGRAM.format(keeps=keeps)]
    faults = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert least <= faults <= most

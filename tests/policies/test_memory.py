"""Freed memory is kept, as shown by the pages that the kernel has to hand out."""

import subprocess
import sys

import pytest

from policies.memory import HAS_GLIBC

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


def pages(keeps: bool) -> int:
    command = [sys.executable, "-c", PROGRAM.format(keeps=keeps)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not HAS_GLIBC, reason="does nothing without glibc")
def test_freed_memory_is_kept() -> None:
    assert pages(keeps=True) < 0.1 * pages(keeps=False)

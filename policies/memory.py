"""Reuse of freed tensor memory on a CPU."""

import ctypes
import platform

HAS_GLIBC = platform.libc_ver()[0] == "glibc"
# Parameters of glibc's mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST = 2**31 - 1
LARGEST_ONCE = 2**25  # the most that older versions accept


def keep_freed_memory() -> None:
    """Makes this process keep freed memory of large tensors, up to 2 GB, for reuse.

    glibc returns blocks above 32 MB to the kernel, which hands them out again page by page, zeroed: where every batch
    allocates the same large tensors, that can take a third of the time. Lasts as long as the process; does nothing
    without glibc.
    """
    if HAS_GLIBC:
        libc = ctypes.CDLL(None)
        libc.mallopt(TRIM_THRESHOLD, LARGEST)
        libc.mallopt(MMAP_THRESHOLD, LARGEST) or libc.mallopt(MMAP_THRESHOLD, LARGEST_ONCE)

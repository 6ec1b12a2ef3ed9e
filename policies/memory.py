"""Memory of tensors on a CPU."""

import ctypes
import platform

HAS_GLIBC = platform.libc_ver()[0] == "glibc"
# Parameters of glibc's mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST = 2**31 - 1
LARGEST_ONCE = 2**25  # that older versions take


def keep_freed_memory() -> None:
    """Has this process keep the memory of large tensors that it frees, up to 2 GB, for the next ones.

    glibc gives blocks above 32 MB back to the kernel, which hands them out again page by page, zeroed: where every
    batch makes the same large tensors anew, that can take a third of the time. For the rest of the process; does
    nothing where there is no glibc.
    """
    if HAS_GLIBC:
        libc = ctypes.CDLL(None)
        libc.mallopt(TRIM_THRESHOLD, LARGEST)
        libc.mallopt(MMAP_THRESHOLD, LARGEST) or libc.mallopt(MMAP_THRESHOLD, LARGEST_ONCE)

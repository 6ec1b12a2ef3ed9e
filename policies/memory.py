"""Memory of tensors on a CPU."""

import ctypes
import platform

# Parameters of glibc's mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Has this process keep the memory of large tensors that it frees, for the next ones.

    glibc gives blocks above 32 MB back to the kernel, which hands them out again page by page, zeroed: where every
    batch makes the same large tensors anew, that can take a third of the time. Does nothing where there is no glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter in (MMAP_THRESHOLD, TRIM_THRESHOLD):
            libc.mallopt(parameter, LARGEST)

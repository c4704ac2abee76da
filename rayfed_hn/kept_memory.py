"""Keep freed memory for the next vector, in place of giving it back to the system."""

from __future__ import annotations

import contextlib
import ctypes

# From malloc.h: when the end of the heap is given back, how much more than asked is taken, and
# from which size on a block is taken from the system and given back to it.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3


def keep_memory() -> None:
    """Tell the allocator of the C library to keep what is freed.

    By default, glibc gives blocks of the size of networks back as soon as they are free, and the
    system takes a fault to clear every page of the next one: making a hundred networks of 788,739
    parameters spends most of its time there. Elsewhere than on glibc, this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        # First, since any of them ends glibc's own adaptation; older versions take no more.
        if mallopt(MMAP_THRESHOLD, 2**25):
            mallopt(TRIM_THRESHOLD, 2**31 - 1)
            mallopt(TOP_PAD, 2**26)

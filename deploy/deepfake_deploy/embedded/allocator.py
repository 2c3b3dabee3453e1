"""glibc's allocator, told to keep the memory of a forward pass for the next one."""

from __future__ import annotations

import ctypes

# malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

# The most that every glibc takes, and more than the largest activation of a batch of eight: 8 × 196 × 3072 values in
# fp32 are 18 MiB. What is larger is still given back at once.
LARGEST_KEPT_BLOCK_BYTES = 32 * 2**20
# Free memory at the end of the heap above this goes back to the system: a few times what one forward pass takes.
KEPT_BYTES = 512 * 2**20


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, up to `KEPT_BYTES`; False where the C library is not glibc.

    By default glibc returns a large block to the system when it is freed. The next forward pass is then given the same
    memory anew, page by page, zeroed by the kernel: 6,400 page faults an image, and 7 % fewer images per second
    (loadtests/results/tuning.md).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT_BLOCK_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))

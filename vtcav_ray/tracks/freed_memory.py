"""Keep freed memory in the process, so that a network's passes on a CPU do not wait for page faults.

A pass of a detector over 32 frames of 640 x 384 pixels allocates and frees over a gigabyte. By default, glibc returns
blocks of more than 32 MB to the kernel at once. Each pass then gets them back as 270,000 pages that the kernel fills
with zeros one by one. That was a fifth of the pass's time (YOLOv8n; at 320 x 256 pixels, a fourteenth). In pieces of 16
frames (`vtcav_ray.tracks.detect`) blocks are half as large, and at 640 x 384 still mapped and unmapped in every pass.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_... of malloc.h
_MOST = 2**31 - 1  # bytes; they are C's int
_MOST_OF_OLDER_GLIBC = 32 * 2**20
_SOME, _BLOCK = 64 * 2**20, 4 * 2**20  # bytes


@functools.cache
def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for later allocations of this process, instead of returning it to the kernel.

    Until it ends, the process then holds the most memory that it needed. That may be a quarter more than otherwise:
    freed blocks of other sizes lie between those in use (measured: 1.8 GB instead of 1.5 for 32 frames of 640 x 640).

    Returns:
        Whether the process has glibc, and it agreed. Otherwise nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return False
    kept = any(mallopt(_MMAP_THRESHOLD, size) for size in (_MOST, _MOST_OF_OLDER_GLIBC))
    return kept and bool(mallopt(_TRIM_THRESHOLD, _MOST))


@functools.cache
def keep_some_freed_memory() -> bool:
    """Let glibc keep up to 64 MB of freed memory for later allocations of this process, in blocks of at most 4 MB.

    For work on arrays of 100 kB to 1 MB that follow each other. By default, most of them are mapped and unmapped, or
    the end of the heap is: a scan of tracks waited for 1,000 page faults per shard, a tenth of its time. Does nothing
    after `keep_freed_memory`.

    Returns:
        As `keep_freed_memory`.
    """
    if keep_freed_memory.cache_info().currsize:
        return True
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _BLOCK)) and bool(mallopt(_TRIM_THRESHOLD, _SOME))


def return_freed_memory() -> None:
    """Return freed memory to the kernel once, for a process that goes on to other work. Does nothing without glibc."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)

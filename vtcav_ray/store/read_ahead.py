"""Reading of several files at once, in order, with bounded memory, to hide the latency of an object store."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

# Maximum number of files that are read or queued at once when a table is read shard by shard.
READ_AHEAD_FILES = 16
READ_AHEAD_BYTES = 1 << 25  # stored bytes of these files; one file may be larger
T = TypeVar("T")


def read_ahead(sizes: Mapping[str, int], read: Callable[[str], T]) -> Iterator[T]:
    """Yield `read(path)` of each file in order, while threads read the next files.

    Args:
        sizes: path -> bytes of each file; they bound how much is held at once.
        read: safe to call in several threads.
    """
    if len(sizes) <= 1:  # most tables of a small run
        yield from map(read, sizes)
        return
    waiting: deque[tuple[Future[T], int]] = deque()
    held = 0
    pool = ThreadPoolExecutor(READ_AHEAD_FILES, "read-ahead")
    try:
        for path, size in sizes.items():
            while waiting and (len(waiting) >= READ_AHEAD_FILES or held + size > READ_AHEAD_BYTES):
                future, freed = waiting.popleft()
                yield future.result()
                held -= freed
            # Each in a copy of this context, so that its log lines name the run and stage.
            waiting.append((pool.submit(contextvars.copy_context().run, read, path), size))
            held += size
        while waiting:
            yield waiting.popleft()[0].result()
    finally:  # also if the caller stops early; do not wait for reads in progress
        pool.shutdown(wait=False, cancel_futures=True)

"""How many views go into one model call: found by trial, within memory and as long as it pays.

Results differ in their last digits between batch sizes (a matrix product sums in another order), so one table must not
be made with two. The stage therefore lets its first actor try, and writes the outcome down for all others and for the
runs that go on after a kill (`StageFolder.folder.write_once`).
"""

from __future__ import annotations

import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

logger = logging.getLogger(__name__)

LARGEST = {"cpu": 32, "cuda": 128}
GAIN = 1.05  # a doubled batch has to be faster by so much, or the smaller one is kept: it leaves memory to others
CPU_SHARE = 0.5  # of this process's part of the machine's memory; the rest is for decoded clips and for the system
GPU_SHARE = 0.9


@dataclass(frozen=True)
class Memory:
    """What a process may use, and what it has used.

    Attributes:
        limit: bytes.
        peak: the most bytes in use since `reset`.
        reset: forgets what was; where the system can't (a process's resident memory), the peak is that of its life,
            which makes the trial careful, never bold.
    """

    limit: int
    peak: Callable[[], int]
    reset: Callable[[], None]


def memory_of(device: torch.device, *, cpus: float = 1.0, gpus: float = 1.0, memory_gb: float | None = None) -> Memory:
    """The memory that batches may take on a device.

    Args:
        device: of the model.
        cpus: that this process was given; its part of the machine's memory is as large, where `memory_gb` is None.
        gpus: that this process was given; a part of one, where several processes share it.
        memory_gb: that this process was given, 10^9 bytes.
    """
    if device.type == "cuda":

        def reset() -> None:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)

        total = torch.cuda.mem_get_info(device)[1]
        share = min(1.0, gpus) if gpus > 0 else 1.0
        return Memory(int(GPU_SHARE * share * total), lambda: torch.cuda.max_memory_reserved(device), reset)
    unit = 1 if sys.platform == "darwin" else 1024
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    own = memory_gb * 1e9 if memory_gb is not None else total * min(1.0, cpus / (os.cpu_count() or 1))
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    # What the process had before (the interpreter, the model) is not the batches' own.
    return Memory(
        int(CPU_SHARE * own) + peak_before,
        lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        lambda: None,
    )


def batch_size_by_trial(
    call: Callable[[int], None],
    memory: Memory,
    *,
    largest: int,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Double the batch while it fits and while it pays.

    Args:
        call: runs one batch of so many views to its end; may raise `torch.OutOfMemoryError`.
        memory: see `Memory`.
        largest: no more than so many.
        clock: seconds.

    Returns:
        The last size whose views a second were `GAIN` times those of the half, a power of two or `largest`.

    Raises:
        torch.OutOfMemoryError: not even one fits.
    """
    call(1)  # the first call of all loads kernels and fills caches
    best, best_rate, peaks = 1, 0.0, list[int]()
    size = 1
    while size <= largest:
        # Memory is a constant and so much a view: the next doubling costs twice what the last one cost.
        if len(peaks) >= 2 and peaks[-1] + 2 * (peaks[-1] - peaks[-2]) > memory.limit:
            break
        memory.reset()
        start = clock()
        try:
            call(size)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            break
        rate = size / max(clock() - start, 1e-9)
        peaks.append(memory.peak())
        logger.info("batch size %d: %.2f views/s, peak %.2f GB", size, rate, peaks[-1] / 1e9)
        if peaks[-1] > memory.limit and size > 1:
            break
        if rate < GAIN * best_rate:
            break
        best, best_rate = size, rate
        size *= 2
    memory.reset()
    return best

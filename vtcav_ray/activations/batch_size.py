"""Number of views per model call, found by trial: as large as memory allows and speed rewards.

Results differ in their last digits between batch sizes (a matrix product sums in another order), so one table must not
mix two. The stage therefore lets its first actor try, and stores the result for all other actors and for runs that
resume after a kill (`StageFolder.folder.write_once`).
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
GAIN = 1.05  # a doubled batch must be faster by this factor, else the smaller one is kept: it leaves memory to others
CPU_SHARE = 0.5  # of this process's part of the machine's memory; the rest is for decoded clips and the system
GPU_SHARE = 0.9


@dataclass(frozen=True)
class Memory:
    """The memory limit and use of a process.

    Attributes:
        limit: maximum bytes.
        peak: returns the maximum bytes in use since `reset`.
        reset: resets the peak. If the system cannot (a process's resident memory), the peak covers the process's whole
            life, so the trial errs on the small side.
    """

    limit: int
    peak: Callable[[], int]
    reset: Callable[[], None]


def memory_of(device: torch.device, *, cpus: float = 1.0, gpus: float = 1.0, memory_gb: float | None = None) -> Memory:
    """Return the memory that batches may use on a device.

    Args:
        device: of the model.
        cpus: CPUs assigned to this process; if `memory_gb` is None, it gets the same share of the machine's memory.
        gpus: GPUs assigned to this process; a fraction if several processes share one.
        memory_gb: memory assigned to this process, in 10^9 bytes.
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
    # Memory used before (the interpreter, the model) does not count as the batches'.
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
    """Double the batch while it fits and gets faster.

    Args:
        call: runs one batch of the given number of views; may raise `torch.OutOfMemoryError`.
        memory: see `Memory`.
        largest: maximum number of views.
        clock: seconds.

    Returns:
        The last power of two, at most `largest`, whose views per second were at least `GAIN` times those of its half.

    Raises:
        torch.OutOfMemoryError: not even one view fits.
    """
    call(1)  # the first call loads kernels and fills caches
    best, best_rate, peaks = 1, 0.0, list[int]()
    size = 1
    while size <= largest:
        # Memory is a constant plus an amount per view: the next doubling costs twice as much as the last one.
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

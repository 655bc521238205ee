"""Decoding, resizing and cropping in threads, one batch ahead of the model, and the copy to the GPU beside it.

The libraries that do the work (libwebp, OpenCV, NumPy's copies) let go of the interpreter's lock, so threads run beside
the model's own calls and no pixel is pickled. On a GPU the pixels go as `uint8` through page-locked memory on a stream
of their own, so that the next batch is there when the model has finished the last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from vtcav_ray.errors import InputError

BATCHES_AHEAD = 2  # beside the one that the model has: about 80 MB each for 16 clips of 32 x 224 x 224


@dataclass(frozen=True)
class Batch:
    """Pixels of the clips that can be used, on the model's device.

    Attributes:
        members: their indices, of those asked for.
        pixels: `uint8 [B, V, T, h, w, 3]`; None: no member can be used.
        errors: index -> why it can't be used.
        copied: on a GPU, when the pixels are there.
    """

    members: list[int]
    pixels: torch.Tensor | None
    errors: dict[int, InputError]
    copied: torch.cuda.Event | None = None


def batches_ahead(
    load: Callable[[int], np.ndarray], groups: Sequence[Sequence[int]], device: torch.device, threads: int
) -> Iterator[Batch]:
    """Yield one batch a group, in order.

    Args:
        load: index of a clip -> `uint8 [V, T, h, w, 3]`, all of one shape; called in threads. An `InputError` takes its
            clip out of the batch; any other error is raised here.
        groups: indices of the clips of each batch.
        device: where the pixels go.
        threads: how many.
    """
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    waiting: deque[Future[Batch]] = deque()
    left = iter(groups)
    with ThreadPoolExecutor(max(1, threads), "decode") as decoders, ThreadPoolExecutor(1, "collect") as collector:
        try:
            while True:
                while len(waiting) <= BATCHES_AHEAD and (group := next(left, None)) is not None:
                    clips = [decoders.submit(load, i) for i in group]
                    # In a thread of its own: the copy to the GPU then goes on while the model has the batch before.
                    waiting.append(collector.submit(_collected, group, clips, device, stream))
                if not waiting:
                    return
                batch = waiting.popleft().result()
                if batch.copied is not None and batch.pixels is not None:
                    current = torch.cuda.current_stream(device)
                    current.wait_event(batch.copied)
                    # Made on one stream, used on another: its memory is not free before the model has done with it.
                    batch.pixels.record_stream(current)
                yield batch
        finally:  # where the caller gave up, or a clip's error is on its way: what has not begun is not done
            decoders.shutdown(wait=False, cancel_futures=True)
            collector.shutdown(wait=False, cancel_futures=True)


def _collected(
    group: Sequence[int], clips: Sequence[Future[np.ndarray]], device: torch.device, stream: torch.cuda.Stream | None
) -> Batch:
    found: dict[int, np.ndarray] = {}
    errors: dict[int, InputError] = {}
    for i, clip in zip(group, clips, strict=True):
        try:
            found[i] = clip.result()
        except InputError as error:
            errors[i] = error
    if not found:
        return Batch([], None, errors)
    first = next(iter(found.values()))
    pixels = torch.empty((len(found), *first.shape), dtype=torch.uint8, pin_memory=stream is not None)
    np.stack(list(found.values()), out=pixels.numpy())
    if stream is None:
        return Batch(list(found), pixels, errors)
    with torch.cuda.stream(stream):
        pixels = pixels.to(device, non_blocking=True)
        return Batch(list(found), pixels, errors, stream.record_event())

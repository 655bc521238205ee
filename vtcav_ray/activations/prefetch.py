"""Decoding, resizing and cropping in threads, ahead of the model, with the copy to the GPU in parallel.

The libraries that do the work (libwebp, OpenCV, NumPy's copies) release the interpreter's lock, so threads run in
parallel with the model's calls and no pixel is pickled. For a GPU, pixels are copied as `uint8` through page-locked
memory on a separate stream, so that the next batch is ready when the model finishes the current one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from vtcav_ray.errors import InputError

BATCHES_AHEAD = 2  # in addition to the model's current one: about 80 MB each for 16 clips of 32 x 224 x 224


@dataclass(frozen=True)
class Batch:
    """Pixels of a batch's usable clips, on the model's device.

    Attributes:
        members: indices of the usable clips.
        pixels: `uint8 [B, V, T, h, w, 3]`; None: no clip is usable.
        errors: index -> why the clip is unusable.
        copied: on a GPU, the event that marks the end of the copy.
    """

    members: list[int]
    pixels: torch.Tensor | None
    errors: dict[int, InputError]
    copied: torch.cuda.Event | None = None


def batches_ahead(
    load: Callable[[int], np.ndarray], groups: Sequence[Sequence[int]], device: torch.device, threads: int
) -> Iterator[Batch]:
    """Yield one batch per group, in order.

    Args:
        load: index of a clip -> `uint8 [V, T, h, w, 3]`, all of one shape; called in threads. An `InputError` removes
            its clip from the batch; any other error is raised here.
        groups: indices of the clips of each batch.
        device: where the pixels go.
        threads: number of threads that load clips.
    """
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    waiting: deque[Future[Batch]] = deque()
    left = iter(groups)
    with ThreadPoolExecutor(max(1, threads), "decode") as decoders, ThreadPoolExecutor(1, "collect") as collector:
        try:
            while True:
                while len(waiting) <= BATCHES_AHEAD and (group := next(left, None)) is not None:
                    clips = [decoders.submit(load, i) for i in group]
                    # In a separate thread, so that the copy to the GPU runs while the model works on the last batch.
                    waiting.append(collector.submit(_collected, group, clips, device, stream))
                if not waiting:
                    return
                batch = waiting.popleft().result()
                if batch.copied is not None and batch.pixels is not None:
                    current = torch.cuda.current_stream(device)
                    current.wait_event(batch.copied)
                    # Allocated on one stream, used on another: its memory is not free until the model has finished.
                    batch.pixels.record_stream(current)
                yield batch
        finally:  # if the caller stops early or a clip raises: cancel the work that has not started
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

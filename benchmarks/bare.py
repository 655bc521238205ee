"""The bare extraction core, with torch, MMAction2 and MMEngine alone: for machines that have no Ray (and no PyArrow).

    python benchmarks/throughput.py --no-ray [--models swin-tiny swin-base] [--repeats 5] [--clips 1] [--precision ...]

Clips a second from uint8 clips of 32 x 224 x 224 to the projected activations and gradients of four layers, for Video
Swin-T and Swin-B with random weights; beside MMAction2's own model, forward and backward to its input, on the same
clips. The share of the chip's limit is operations counted (matrix products, attention and convolutions, of a forward
pass and as much again for backward) a second, over those of one large matrix product of the same type, measured in the
same run. Memory is the peak since the process began (CPU), or since the model's turn began (GPU).
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from vtcav_ray.activations import Extractor
from vtcav_ray.config import ModelConfig
from vtcav_ray.models import load_recogniser
from vtcav_ray.models.config_files import read_config
from vtcav_ray.models.mmaction import build_mmaction

MODELS = {
    "swin-tiny": "recognition/swin/swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb",
    "swin-base": "recognition/swin/swin-base-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb",
}
LAYERS = ("early", "middle", "late", "head")


def measure(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """One model: seconds a batch of both ways, in turns, their ratio, clips a second, share of the limit, memory.

    Args:
        model: a key of `MODELS`.
        options: `device`, `clips` (a batch), `frames`, `size`, `precision`, `repeats`.
    """
    config = MODELS[model]
    recogniser = load_recogniser(ModelConfig(config=config, checkpoint="untrained"), options.device)
    device = recogniser.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    own: Any = build_mmaction(read_config(config), config, seed=None).requires_grad_(False).to(device)
    own.load_state_dict(recogniser.module.state_dict())
    shape = (options.frames, options.size, options.size, 3)
    clips = list(np.random.default_rng(0).integers(0, 256, (options.clips, *shape), dtype=np.uint8))
    extractor = Extractor(recogniser, LAYERS, precision=options.precision, batch_size=options.clips)
    x = recogniser.preprocess(clips)[:, 0]
    half = options.precision != "float32"

    def theirs() -> None:
        leaf = x.clone().requires_grad_()
        with torch.autocast(device.type, dtype=getattr(torch, options.precision), enabled=half):
            logits = own.cls_head(own.backbone(leaf))
        torch.autograd.grad(logits[:, 0].sum(), leaf)

    def ours() -> None:
        extractor.extract(clips, [[0]] * len(clips))

    operations = 2 * counted(lambda: own.cls_head(own.backbone(x)))
    theirs()
    ours()
    pairs = [(seconds(theirs, device), seconds(ours, device)) for _ in range(options.repeats)]
    limit = matmul_rate(device, options.precision)
    taken = median(b for _, b in pairs)
    return {
        "input": [options.clips, *shape],
        "repeats": options.repeats,
        "mmaction_s": spread([a for a, _ in pairs]),
        "ours_s": spread([b for _, b in pairs]),
        "ratio": spread([a / b for a, b in pairs]),
        "clips_per_second": options.clips / taken,
        "operations_a_clip": operations / options.clips,
        "operations_per_second": operations / taken,
        "matmul_operations_per_second": limit,
        "share_of_limit": operations / taken / limit,
        "peak_memory_MB": peak_memory(device) / 1e6,
    }


def seconds(way: Callable[[], Any], device: torch.device) -> float:
    """By the clock on a GPU, of the processor (all threads) elsewhere."""
    now = time.perf_counter if device.type == "cuda" else time.process_time
    _synchronise(device)
    start = now()
    way()
    _synchronise(device)
    return now() - start


def matmul_rate(device: torch.device, precision: str) -> float:
    """Operations a second (of `seconds`) in one large matrix product of the same type: the practical limit."""
    n = 8192 if device.type == "cuda" else 1536
    a = torch.randn(n, n, device=device, dtype=getattr(torch, precision))
    a @ a
    return 2 * n**3 / min(seconds(lambda: a @ a, device) for _ in range(4))


def counted(way: Callable[[], Any]) -> int:
    """Operations of matrix products, attention and convolutions: two for each multiply-add."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        way()
    return counter.get_total_flops()


def peak_memory(device: torch.device) -> float:
    """Bytes."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

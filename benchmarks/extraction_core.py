"""Benchmark the extraction core with only torch, MMAction2 and MMEngine: for machines without Ray (and PyArrow).

    python benchmarks/throughput.py --no-ray [--models swin-tiny swin-base] [--repeats 5] [--clips 1] [--precision ...]

Measures clips per second from uint8 clips of 32 x 224 x 224 to the projected activations and gradients of four layers,
for Video Swin-T and Swin-B with random weights, beside MMAction2's own model (forward, and backward to its input) on
the same clips.

The share of the chip's limit is the counted operations per second (matrix products, attention and convolutions of the
forward pass, and as many again for backward), divided by those of one large matrix product of the same type, measured
in the same run; on GPUs listed in `PEAKS`, also divided by the manufacturer's figure. Backward stops at the earliest
extracted layer, so the share is slightly too high. On a CPU, ratio and share use processor time (all threads); clips
per second use wall time. Memory is the peak while one way runs, including weights and inputs of both: resident bytes of
the process (CPU), allocated bytes (GPU).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from environment import moment, spread
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
# Dense operations per second from NVIDIA's data sheets; float32 without TF32, torch's default.
PEAKS = {
    "H200": {"float32": 67e12, "bfloat16": 989e12, "float16": 989e12},
    "H100 PCIe": {"float32": 51e12, "bfloat16": 756e12, "float16": 756e12},
    "H100": {"float32": 67e12, "bfloat16": 989e12, "float16": 989e12},
    "A100": {"float32": 19.5e12, "bfloat16": 312e12, "float16": 312e12},
    "A10G": {"float32": 31.2e12, "bfloat16": 70e12, "float16": 70e12},
    "L4": {"float32": 30.3e12, "bfloat16": 121e12, "float16": 121e12},
    "V100": {"float32": 15.7e12, "float16": 125e12},
    "T4": {"float32": 8.1e12, "float16": 65e12},
}


def ways_of(model: str, options: Any) -> tuple[Callable[[], Any], Callable[[], Any], Callable[[], Any], torch.device]:
    """Return MMAction2's forward and backward pass, ours, MMAction2's forward pass alone, and the device.

    Args:
        model: a key of `MODELS`.
        options: `device`, `clips` (per batch), `frames`, `size`, `precision`.
    """
    config = MODELS[model]
    recogniser = load_recogniser(ModelConfig(config=config, checkpoint="untrained"), options.device)
    device = recogniser.device
    own: Any = build_mmaction(read_config(config), config, seed=None).requires_grad_(False).to(device)
    own.load_state_dict(recogniser.module.state_dict())
    shape = (options.clips, options.frames, options.size, options.size, 3)
    clips = list(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
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

    return theirs, ours, lambda: own.cls_head(own.backbone(x)), device


def measure(model: str, options: Any) -> dict[str, Any]:
    """Measure one model: seconds per batch of both ways in turns, their ratio, clips/s, share of the limit, memory.

    Args:
        model: a key of `MODELS`.
        options: those of `ways_of`, plus `repeats`.
    """
    theirs, ours, forward, device = ways_of(model, options)
    operations = 2 * counted(forward)
    memory = {"ours": peak_memory(ours, device), "mmaction": peak_memory(theirs, device)}  # also warms up both
    pairs = [(timed(theirs, device), timed(ours, device)) for _ in range(options.repeats)]
    limit = matmul_rate(device, options.precision)
    wall, busy = (median(found[i] for _, found in pairs) for i in (0, 1))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    peak = next((p.get(options.precision) for chip, p in PEAKS.items() if chip in name), None)
    return {
        **moment(),
        "device": name,
        "input": [options.clips, options.frames, options.size, options.size, 3],
        "precision": options.precision,
        "threads": torch.get_num_threads(),
        "repeats": options.repeats,
        "mmaction_s": spread([a for (a, _), _ in pairs]),
        "ours_s": spread([a for _, (a, _) in pairs]),
        "ratio": spread([a / b for (_, a), (_, b) in pairs]),
        "clips_per_second": options.clips / wall,
        "operations_a_clip": operations / options.clips,
        "operations_per_second": operations / busy,
        "matmul_operations_per_second": limit,
        "share_of_matmul_rate": operations / busy / limit,
        "makers_peak_operations_per_second": peak,
        "share_of_makers_peak": None if peak is None else operations / busy / peak,
        "peak_memory_MB": {way: value / 1e6 for way, value in memory.items()},
    }


def sentence(found: dict[str, Any]) -> str:
    """Return one line for the terminal."""
    peak = found["share_of_makers_peak"]
    shares = f"{found['share_of_matmul_rate']:.0%} of a large matrix product's rate"
    shares += "" if peak is None else f", {peak:.0%} of the maker's peak"
    ratio, memory = found["ratio"], found["peak_memory_MB"]
    return (
        f"{found['clips_per_second']:.3f} clips/s, {shares}, {ratio['median']:.2f} times ({ratio['min']:.2f} to "
        f"{ratio['max']:.2f}) MMAction2's own, {memory['ours']:.0f} MB (MMAction2's own {memory['mmaction']:.0f})"
    )


def timed(way: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    """Return wall seconds and processor seconds (all threads); on a GPU, both are wall seconds."""
    _synchronise(device)
    wall, busy = time.perf_counter(), time.process_time()
    way()
    _synchronise(device)
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    return wall, (wall if device.type == "cuda" else busy)


def matmul_rate(device: torch.device, precision: str) -> float:
    """Return operations per second (by the second value of `timed`) of one large matrix product of the same type."""
    n = 8192 if device.type == "cuda" else 1536
    a = torch.randn(n, n, device=device, dtype=getattr(torch, precision))
    a @ a
    return 2 * n**3 / min(timed(lambda: a @ a, device)[1] for _ in range(4))


def counted(way: Callable[[], Any]) -> int:
    """Count the operations of matrix products, attention and convolutions: two per multiply-add."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        way()
    return counter.get_total_flops()


def peak_memory(way: Callable[[], Any], device: torch.device) -> float:
    """Return the peak number of bytes held while `way` runs."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        way()
        return float(torch.cuda.max_memory_allocated(device))
    Path("/proc/self/clear_refs").write_text("5")  # reset the kernel's peak value
    way()
    status = Path("/proc/self/status").read_text()
    return 1024.0 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

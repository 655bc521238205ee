"""Measure how much of the model's own speed remains, for MMAction2's Swin-T with its full-size input.

    python benchmarks/throughput_swin.py                         # 5 repeats on 1 clip of 32 x 224 x 224
    python benchmarks/throughput_swin.py --clock cpu --threads 1 # CPU seconds: for a shared machine

Five ways take turns in every repeat, on the same clips, so a ratio compares runs under the same conditions:

- `mmaction`: MMAction2's own model, forward and backward to its input, parameters frozen, tensors preloaded;
- `fused`: the same with our window attention: the plain pass that the others are compared with;
- `model loop`: only the fused model's forward, and backward to the earliest extracted layer;
- `extract`: from uint8 clips to the projected activations and gradients of all four layers;
- `stage`: the worker of the stage `activations`, from a Parquet shard of stored clips (read, decoded, resized, cropped)
  to committed Parquet shards of all four layers' activations and gradients; divided by its number of batches.

The model's weights are random, which does not affect timing. Prints a table and writes JSON to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
from torch.utils.flop_counter import FlopCounterMode

from vtcav_ray import tables
from vtcav_ray.activations import Extractor
from vtcav_ray.activations.stage import ExtractWorker
from vtcav_ray.config import ModelConfig
from vtcav_ray.config.loading import parse_config
from vtcav_ray.models import Recogniser, load_recogniser
from vtcav_ray.models.config_files import read_config
from vtcav_ray.models.layers import watched
from vtcav_ray.models.mmaction import build_mmaction
from vtcav_ray.runs.devices import pick_device
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.store.folder import Folder
from vtcav_ray.video.codec import encode_clip

CONFIG = "recognition/swin/swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb"
LAYERS = ("early", "middle", "late", "head")
RESULTS = Path(__file__).parent / "results"
DISTINCT = 16  # distinct clips that are drawn and stored; a longer shard repeats them
RATIOS = {  # name -> (slower, faster, target for slower / faster)
    "MMAction2's own / fused, forward and backward": ("mmaction", "fused", "at least 1.8"),
    "all layers extracted / one plain forward and backward": ("extract", "fused", "at most 1.1"),
    "all layers extracted / model loop of the same work": ("extract", "model loop", "at most 1.11"),
    "clips a second: whole stage / model loop": ("model loop", "stage", "at least 0.9"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clips", type=int, default=1, help="clips a batch")
    parser.add_argument("--shard", type=int, default=4, help="batches in the stage's shard")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--config", default=CONFIG)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = measure(options)
    print(as_table(result))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"throughput_swin_{result['device_type']}_{options.precision}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {path}")


def ways_of(options: Any) -> tuple[dict[str, Callable[[], Any]], Callable[[], Any], float, torch.device]:
    """Return the five ways, a forward pass alone, stored clip bytes as a share of raw bytes, and the device."""
    recogniser = load_recogniser(ModelConfig(config=options.config, checkpoint="untrained"), options.device)
    device = recogniser.device
    own = build_mmaction(read_config(options.config), options.config, seed=None).requires_grad_(False).to(device)
    own.load_state_dict(recogniser.module.state_dict())
    stream = np.random.RandomState(0)
    count = options.clips * options.shard
    drawn = [drawn_clip(stream, options.frames, options.size) for _ in range(min(count, DISTINCT))]
    clips = [drawn[i % len(drawn)] for i in range(count)]
    model = {"config": options.config, "checkpoint": "untrained", "labels": "asset:kinetics400.txt"}
    stored, stage = whole_stage(clips, options, model)
    clips = clips[: options.clips]
    x = recogniser.preprocess(clips)[:, 0]
    classes = [[i % 400] for i in range(options.clips)]
    extractor = Extractor(recogniser, LAYERS, precision=options.precision, batch_size=options.clips)
    ways: dict[str, Callable[[], Any]] = {
        "mmaction": lambda: to_the_input(own, x, options.precision),
        "fused": lambda: to_the_input(recogniser.module, x, options.precision),
        "model loop": lambda: to_the_earliest_layer(recogniser, x, options.precision),
        "extract": lambda: extractor.extract(clips, classes),
        "stage": stage,
    }
    return ways, lambda: recogniser.logits(x), stored, device


def to_the_input(module: Any, x: torch.Tensor, precision: str) -> None:
    """Run forward, and backward to the input `[B, 3, T, H, W]`, with frozen parameters."""
    leaf = x.clone().requires_grad_()
    with torch.autocast(x.device.type, dtype=getattr(torch, precision), enabled=precision != "float32"):
        logits = module.cls_head(module.backbone(leaf))
    torch.autograd.grad(logits[:, 0].sum(), leaf)


def to_the_earliest_layer(recogniser: Recogniser, x: torch.Tensor, precision: str) -> None:
    """Run forward, and backward to the earliest extracted layer: the model loop of the stage's work."""
    kept: list[torch.Tensor] = []

    def start_here(raw: torch.Tensor) -> torch.Tensor:
        kept.append(raw.detach().requires_grad_())
        return kept[0]

    with (
        watched(recogniser.module, recogniser.layer_aliases["early"], start_here),
        torch.autocast(x.device.type, dtype=getattr(torch, precision), enabled=precision != "float32"),
    ):
        logits = recogniser.logits(x)
    torch.autograd.grad(logits[:, 0].sum(), kept)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    ways, forward, stored, device = ways_of(options)
    # With frozen parameters, backward has one product per product of forward.
    operations = 2 * count(forward)
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.repeats):
        for name, way in ways.items():
            batches = options.shard if name == "stage" else 1
            seconds[name].append(timed(way, options.clock, device) / batches)
        taken = ", ".join(f"{name} {values[-1]:.3f}" for name, values in seconds.items())
        print(f"repeat {number + 1} of {options.repeats}: {taken}", file=sys.stderr, flush=True)
    ratios = {
        title: spread([a / b for a, b in zip(seconds[slower], seconds[faster], strict=True)])
        for title, (slower, faster, _) in RATIOS.items()
    }
    limit = matmul_rate(device, options)
    rate = operations / median(seconds["fused"])
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": options.config,
        "clips": options.clips,
        "input": [options.frames, options.size, options.size],
        "precision": options.precision,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU",
        "device_type": device.type,
        "threads": options.threads,
        "clock": options.clock,
        "torch": torch.__version__,
        "repeats": options.repeats,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ratios": ratios,
        "stored_bytes_of_raw": stored,
        "operations": operations,
        "operations_per_second": rate,
        "matmul_operations_per_second": limit,
        "matmul_over_model": limit / rate,
    }


def drawn_clip(stream: np.random.RandomState, frames: int, size: int) -> np.ndarray:
    """Draw a soft, drifting texture with camera noise. It compresses about like real clips."""
    field = cv2.resize(stream.randint(0, 256, (size // 4, size // 4, 3), np.uint8), (2 * size, 2 * size))
    field = cv2.GaussianBlur(field, (0, 0), 2)
    still = [field[t : t + size, 2 * t : 2 * t + size] for t in range(frames)]
    noise = stream.randint(-1, 2, (frames, size, size, 3))
    return np.clip(np.stack(still) + noise, 0, 255).astype(np.uint8)


def whole_stage(
    clips: list[np.ndarray], options: argparse.Namespace, model: Mapping[str, Any]
) -> tuple[float, Callable[[], Any]]:
    """Store the clips like the previous stage. Return the stored share of raw bytes, and the stage's work on them.

    Args:
        clips: `uint8 [T, H, W, 3]`.
        options: clips (per batch), precision, threads, device.
        model: section of the config.
    """
    folder = Folder(tempfile.mkdtemp(prefix="throughput_"))
    config = parse_config(
        {
            "videos": {"uri": "none"},
            "model": model,
            "activations": {"layers": LAYERS, "precision": options.precision},
            "resources": {
                "extract": {
                    "batch_size": options.clips,
                    "cpus": options.threads,
                    "gpus": float(pick_device(options.device).type == "cuda"),
                }
            },
        }
    )
    distinct = {id(clip): clip for clip in clips}  # a long shard may repeat clips, and storing one takes seconds
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        stored = dict(zip(distinct, threads.map(encode_clip, distinct.values()), strict=True))
    encoded = [stored[id(clip)] for clip in clips]
    rows: dict[str, list[Any]] = {name: [None] * len(clips) for name in tables.CLIPS.names}
    rows |= {
        "clip_id": [f"clip{i}" for i in range(len(clips))],
        "video_id": [f"video{i}" for i in range(len(clips))],
        "set": ["class"] * len(clips),
        "name": ["abseiling"] * len(clips),
        "label": ["abseiling"] * len(clips),
        "encoding": [encoding for encoding, _ in encoded],
        "encoded": [content for _, content in encoded],
    }
    source = StageFolder("clips", "k", folder.below("clips"))
    source.commit("shard", ShardOutput({"clips": pa.table(rows, schema=tables.CLIPS)}))
    output = StageFolder("activations", "k", folder.below("activations"))
    worker = ExtractWorker(config, source, output.folder)

    def run() -> None:
        record = output.commit("shard", worker(pa.table({"shard": ["shard"]})))
        assert record["failures"] == 0
        assert sum(file["rows"] for file in record["files"].values()) == 2 * len(clips) * len(LAYERS) + len(clips)

    return sum(len(content) for _, content in encoded) / sum(clip.nbytes for clip in clips), run


def timed(way: Callable[[], Any], clock: str, device: torch.device) -> float:
    now = time.process_time if clock == "cpu" else time.perf_counter
    synchronise(device)
    start = now()
    way()
    synchronise(device)
    return now() - start


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def count(way: Callable[[], Any]) -> int:
    """Count the operations of matrix products, attention and convolutions: two per multiply-add."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        way()
    return counter.get_total_flops()


def matmul_rate(device: torch.device, options: argparse.Namespace) -> float:
    """Return the device's rate in one large matrix product of the same type: the practical limit."""
    n = 8192 if device.type == "cuda" else 1536
    a = torch.randn(n, n, device=device, dtype=getattr(torch, options.precision))
    best = min(timed(lambda: a @ a, options.clock, device) for _ in range(4))
    return 2 * n**3 / best


def spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def as_table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['config'].rsplit('/', 1)[-1]}",
        f"{result['clips']} clip(s) of {'x'.join(map(str, result['input']))}, {result['precision']}, "
        f"{result['device']} ({result['threads']} threads), {result['clock']} time, {result['repeats']} repeats",
        "",
        f"{'seconds a batch':<58}{'median':>9}{'min':>9}{'max':>9}",
    ]
    for name, s in result["seconds"].items():
        lines.append(f"{name:<58}{s['median']:>9.3f}{s['min']:>9.3f}{s['max']:>9.3f}")
    lines += ["", f"{'ratio, of passes in the same repeat':<58}{'median':>9}{'min':>9}{'max':>9}  wanted"]
    for title, s in result["ratios"].items():
        lines.append(f"{title:<58}{s['median']:>9.2f}{s['min']:>9.2f}{s['max']:>9.2f}  {RATIOS[title][2]}")
    lines += ["", f"clips stored in {100 * result['stored_bytes_of_raw']:.0f} % of their raw size"]
    lines.append(
        f"{result['operations'] / 1e9:.0f} G operations a pass; {result['operations_per_second'] / 1e9:.1f} G/s, and "
        f"{result['matmul_operations_per_second'] / 1e9:.1f} G/s in one large matrix product: "
        f"{result['matmul_over_model']:.2f} times as many"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

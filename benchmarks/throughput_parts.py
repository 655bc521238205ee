"""What the benchmarks of whole networks share: options, clips, turns, and the table of seconds and ratios."""

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
from vtcav_ray.activations.stage import ExtractWorker
from vtcav_ray.config.loading import parse_config
from vtcav_ray.models import Recogniser
from vtcav_ray.models.layers import watched
from vtcav_ray.runs.devices import pick_device
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.store.folder import Folder
from vtcav_ray.video.codec import encode_clip

LAYERS = ("early", "middle", "late", "head")
RESULTS = Path(__file__).parent / "results"
DISTINCT = 16  # distinct clips that are drawn and stored; a longer shard repeats them
Ratios = Mapping[str, tuple[str, str, str]]  # name -> (slower, faster, target for slower / faster)
Ways = tuple[dict[str, Callable[[], Any]], Callable[[], Any], float, torch.device]


def parser_of(description: str | None, *, frames: int) -> argparse.ArgumentParser:
    """Return a parser with the options that all networks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clips", type=int, default=1, help="clips a batch")
    parser.add_argument("--shard", type=int, default=4, help="batches in the stage's shard")
    parser.add_argument("--frames", type=int, default=frames)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser


def write(result: dict[str, Any], name: str) -> None:
    """Write a result as JSON into `benchmarks/results/`, and print where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}_{result['device_type']}_{result['precision']}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {path}")


def drawn_clips(options: argparse.Namespace) -> list[np.ndarray]:
    """Draw the clips of one shard, `uint8 [T, H, W, 3]`; a long shard repeats them."""
    stream = np.random.RandomState(0)
    number = options.clips * options.shard
    drawn = [drawn_clip(stream, options.frames, options.size) for _ in range(min(number, DISTINCT))]
    return [drawn[i % len(drawn)] for i in range(number)]


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


def measured(
    ways_of: Ways, options: argparse.Namespace, ratios: Ratios
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Let the ways take turns. Return the seconds of each, and the figures that all networks have."""
    ways, forward, stored, device = ways_of
    operations = 2 * count(forward)  # with frozen parameters, backward has one product per product of forward
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.repeats):
        for name, way in ways.items():
            batches = options.shard if name == "stage" else 1
            seconds[name].append(timed(way, options.clock, device) / batches)
        taken = ", ".join(f"{name} {values[-1]:.3f}" for name, values in seconds.items())
        print(f"repeat {number + 1} of {options.repeats}: {taken}", file=sys.stderr, flush=True)
    return seconds, {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "clips": options.clips,
        "input": [options.frames, options.size, options.size],
        "precision": options.precision,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU",
        "device_type": device.type,
        "threads": options.threads,
        "clock": options.clock,
        "repeats": options.repeats,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ratios": {
            title: spread([a / b for a, b in zip(seconds[slower], seconds[faster], strict=True)])
            for title, (slower, faster, _) in ratios.items()
        },
        "stored_bytes_of_raw": stored,
        "operations": operations,
    }


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


def spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def table_lines(network: str, result: Mapping[str, Any], ratios: Ratios) -> list[str]:
    """Return the lines of the printed table."""
    lines = [
        network,
        f"{result['clips']} clip(s) of {'x'.join(map(str, result['input']))}, {result['precision']}, "
        f"{result['device']} ({result['threads']} threads), {result['clock']} time, {result['repeats']} repeats",
        "",
        f"{'seconds a batch':<58}{'median':>9}{'min':>9}{'max':>9}",
    ]
    for name, s in result["seconds"].items():
        lines.append(f"{name:<58}{s['median']:>9.3f}{s['min']:>9.3f}{s['max']:>9.3f}")
    lines += ["", f"{'ratio, of passes in the same repeat':<58}{'median':>9}{'min':>9}{'max':>9}  wanted"]
    for title, s in result["ratios"].items():
        lines.append(f"{title:<58}{s['median']:>9.2f}{s['min']:>9.2f}{s['max']:>9.2f}  {ratios[title][2]}")
    return lines

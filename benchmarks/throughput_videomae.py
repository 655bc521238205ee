"""Measure how much of the model's own speed remains, for Hugging Face's VideoMAE-B with its full-size input.

    python benchmarks/throughput_videomae.py                         # 5 repeats on 1 clip of 16 x 224 x 224
    python benchmarks/throughput_videomae.py --clock cpu --threads 1 # CPU seconds: for a shared machine

Five ways take turns in every repeat, on the same clips, as in `throughput_swin.py`:

- `eager`: the library's own model with `attn_implementation: eager`, forward and backward to its input, parameters
  frozen, tensors preloaded;
- `sdpa`: the same through PyTorch's SDPA, which a run uses;
- `bare loop`: only the model's forward, and backward to the earliest extracted layer: the stage's work without us;
- `extract`: from uint8 clips to the projected activations and gradients of all four layers;
- `stage`: the worker of the stage `activations`, from a Parquet shard of stored clips (read, decoded, resized, cropped)
  to committed Parquet shards of all four layers' activations and gradients; divided by its number of batches.

The model's weights are random, which does not affect timing. Prints a table and writes JSON to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median
from typing import Any

import numpy as np
import torch
from throughput_swin import (
    DISTINCT,
    LAYERS,
    RESULTS,
    count,
    drawn_clip,
    spread,
    timed,
    to_the_earliest_layer,
    whole_stage,
)

from vtcav_ray.activations import Extractor
from vtcav_ray.config import ModelConfig
from vtcav_ray.models import load_recogniser
from vtcav_ray.models.transformers_models import import_transformers
from vtcav_ray.store.files import read_bytes

RATIOS = {  # name -> (slower, faster, target for slower / faster)
    "eager attention / SDPA, forward and backward": ("eager", "sdpa", ""),
    "all layers extracted / bare loop of the same work": ("extract", "bare loop", "at most 1.11"),
    "clips a second: whole stage / bare loop": ("bare loop", "stage", "at least 0.9"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clips", type=int, default=1, help="clips a batch")
    parser.add_argument("--shard", type=int, default=4, help="batches in the stage's shard")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--layers", type=int, default=12, help="blocks of the network")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = measure(options)
    print(as_table(result))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"throughput_videomae_{result['device_type']}_{options.precision}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {path}")


def ways_of(options: Any) -> tuple[dict[str, Callable[[], Any]], Callable[[], Any], float, torch.device]:
    """Return the five ways, a forward pass alone, stored clip bytes as a share of raw bytes, and the device."""
    folder = network_folder(options)
    model = {"framework": "transformers", "config": folder, "checkpoint": "untrained"}
    recogniser = load_recogniser(ModelConfig(**model), options.device)
    eager = load_recogniser(ModelConfig(**model), options.device).module
    eager.set_attn_implementation("eager")  # type: ignore[operator]
    stream = np.random.RandomState(0)
    number = options.clips * options.shard
    drawn = [drawn_clip(stream, options.frames, options.size) for _ in range(min(number, DISTINCT))]
    clips = [drawn[i % len(drawn)] for i in range(number)]
    stored, stage = whole_stage(clips, options, model)
    clips = clips[: options.clips]
    x = recogniser.preprocess(clips)[:, 0]
    classes = [[i % 400] for i in range(options.clips)]
    extractor = Extractor(recogniser, LAYERS, precision=options.precision, batch_size=options.clips)
    ways: dict[str, Callable[[], Any]] = {
        "eager": lambda: to_the_input(eager, x, options.precision),
        "sdpa": lambda: to_the_input(recogniser.module, x, options.precision),
        "bare loop": lambda: to_the_earliest_layer(recogniser, x, options.precision),
        "extract": lambda: extractor.extract(clips, classes),
        "stage": stage,
    }
    return ways, lambda: recogniser.logits(x), stored, recogniser.device


def network_folder(options: Any) -> str:
    """Write the `config.json` of a VideoMAE-B for Kinetics-400 into a new folder; return its path."""
    settings = import_transformers().VideoMAEConfig(
        image_size=options.size,
        num_frames=options.frames,
        num_hidden_layers=options.layers,
        id2label=dict(enumerate(read_bytes("asset:kinetics400.txt").decode().splitlines())),
    )
    folder = tempfile.mkdtemp(prefix="throughput_videomae_")
    settings.save_pretrained(folder)
    return folder


def to_the_input(module: Any, x: torch.Tensor, precision: str) -> None:
    """Run forward, and backward to the input `[B, 3, T, H, W]`, with frozen parameters."""
    leaf = x.transpose(1, 2).clone().requires_grad_()
    with torch.autocast(x.device.type, dtype=getattr(torch, precision), enabled=precision != "float32"):
        logits = module(pixel_values=leaf).logits
    torch.autograd.grad(logits[:, 0].sum(), leaf)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    ways, forward, stored, device = ways_of(options)
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
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "network": f"VideoMAE-B, {options.layers} blocks",
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
            for title, (slower, faster, _) in RATIOS.items()
        },
        "stored_bytes_of_raw": stored,
        "operations": operations,
        "operations_per_second": operations / median(seconds["sdpa"]),
    }


def as_table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['network']}: {result['clips']} clip(s) of {'x'.join(map(str, result['input']))}, "
        f"{result['precision']}, {result['device']} ({result['threads']} threads), {result['clock']} time, "
        f"{result['repeats']} repeats",
        "",
        f"{'seconds a batch':<58}{'median':>9}{'min':>9}{'max':>9}",
    ]
    for name, s in result["seconds"].items():
        lines.append(f"{name:<58}{s['median']:>9.3f}{s['min']:>9.3f}{s['max']:>9.3f}")
    lines += ["", f"{'ratio, of passes in the same repeat':<58}{'median':>9}{'min':>9}{'max':>9}  wanted"]
    for title, s in result["ratios"].items():
        lines.append(f"{title:<58}{s['median']:>9.2f}{s['min']:>9.2f}{s['max']:>9.2f}  {RATIOS[title][2]}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

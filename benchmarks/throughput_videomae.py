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
import tempfile
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from throughput_parts import (
    LAYERS,
    Ways,
    drawn_clips,
    measured,
    parser_of,
    table_lines,
    to_the_earliest_layer,
    whole_stage,
    write,
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
    parser = parser_of(__doc__, frames=16)
    parser.add_argument("--layers", type=int, default=12, help="blocks of the network")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = measure(options)
    print("\n".join(table_lines(result["network"], result, RATIOS)))
    write(result, "throughput_videomae")


def ways_of(options: Any) -> Ways:
    """Return the five ways, a forward pass alone, stored clip bytes as a share of raw bytes, and the device."""
    folder = network_folder(options)
    model = {"framework": "transformers", "config": folder, "checkpoint": "untrained"}
    recogniser = load_recogniser(ModelConfig(**model), options.device)
    eager = load_recogniser(ModelConfig(**model), options.device).module
    eager.set_attn_implementation("eager")  # type: ignore[operator]
    clips = drawn_clips(options)
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
    seconds, figures = measured(ways_of(options), options, RATIOS)
    rate = figures["operations"] / median(seconds["sdpa"])
    return {"network": f"VideoMAE-B, {options.layers} blocks", **figures, "operations_per_second": rate}


if __name__ == "__main__":
    main()

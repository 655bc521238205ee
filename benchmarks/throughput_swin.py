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
    timed,
    to_the_earliest_layer,
    whole_stage,
    write,
)

from vtcav_ray.activations import Extractor
from vtcav_ray.config import ModelConfig
from vtcav_ray.models import load_recogniser
from vtcav_ray.models.config_files import read_config
from vtcav_ray.models.mmaction import build_mmaction

CONFIG = "recognition/swin/swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb"
RATIOS = {  # name -> (slower, faster, target for slower / faster)
    "MMAction2's own / fused, forward and backward": ("mmaction", "fused", "at least 1.8"),
    "all layers extracted / one plain forward and backward": ("extract", "fused", "at most 1.1"),
    "all layers extracted / model loop of the same work": ("extract", "model loop", "at most 1.11"),
    "clips a second: whole stage / model loop": ("model loop", "stage", "at least 0.9"),
}


def main() -> None:
    parser = parser_of(__doc__, frames=32)
    parser.add_argument("--config", default=CONFIG)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = measure(options)
    print(as_table(result))
    write(result, "throughput_swin")


def ways_of(options: Any) -> Ways:
    """Return the five ways, a forward pass alone, stored clip bytes as a share of raw bytes, and the device."""
    recogniser = load_recogniser(ModelConfig(config=options.config, checkpoint="untrained"), options.device)
    device = recogniser.device
    own = build_mmaction(read_config(options.config), options.config, seed=None).requires_grad_(False).to(device)
    own.load_state_dict(recogniser.module.state_dict())
    clips = drawn_clips(options)
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


def measure(options: argparse.Namespace) -> dict[str, Any]:
    ways = ways_of(options)
    seconds, figures = measured(ways, options, RATIOS)
    limit = matmul_rate(ways[-1], options)
    rate = figures["operations"] / median(seconds["fused"])
    return {
        "config": options.config,
        "torch": torch.__version__,
        **figures,
        "operations_per_second": rate,
        "matmul_operations_per_second": limit,
        "matmul_over_model": limit / rate,
    }


def matmul_rate(device: torch.device, options: argparse.Namespace) -> float:
    """Return the device's rate in one large matrix product of the same type: the practical limit."""
    n = 8192 if device.type == "cuda" else 1536
    a = torch.randn(n, n, device=device, dtype=getattr(torch, options.precision))
    best = min(timed(lambda: a @ a, options.clock, device) for _ in range(4))
    return 2 * n**3 / best


def as_table(result: dict[str, Any]) -> str:
    lines = table_lines(result["config"].rsplit("/", 1)[-1], result, RATIOS)
    lines += ["", f"clips stored in {100 * result['stored_bytes_of_raw']:.0f} % of their raw size"]
    lines.append(
        f"{result['operations'] / 1e9:.0f} G operations a pass; {result['operations_per_second'] / 1e9:.1f} G/s, and "
        f"{result['matmul_operations_per_second'] / 1e9:.1f} G/s in one large matrix product: "
        f"{result['matmul_over_model']:.2f} times as many"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

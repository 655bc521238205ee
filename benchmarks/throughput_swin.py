"""How much of the model's own speed is left, for MMAction2's Swin-T with its full-size input.

    python benchmarks/throughput_swin.py                         # 5 repeats on 1 clip of 32 x 224 x 224
    python benchmarks/throughput_swin.py --clock cpu --threads 1 # CPU seconds: for a machine that others use too

Four ways take turns in every repeat, on the same clips, so that a ratio compares what ran side by side:

- `mmaction`: MMAction2's own model, forward and backward to its input, parameters frozen, tensors preloaded;
- `fused`: the same with our window attention: the plain pass that the others are measured against;
- `bare`: the fused model's forward, and backward down to the earliest layer that is extracted, and nothing else;
- `extract`: from uint8 clips to the projected activations and gradients of all four layers.

The model's weights are random, which changes no timing. Prints a table and writes JSON to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from vtcav_ray.activations import Extractor
from vtcav_ray.config import ModelConfig
from vtcav_ray.models import load_recogniser
from vtcav_ray.models.config_files import read_config
from vtcav_ray.models.layers import watched
from vtcav_ray.models.mmaction import build_mmaction

CONFIG = "recognition/swin/swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb"
LAYERS = ("early", "middle", "late", "head")
RESULTS = Path(__file__).parent / "results"
RATIOS = {  # name -> (slower, faster, what issue asks of slower / faster)
    "MMAction2's own / fused, forward and backward": ("mmaction", "fused", "at least 1.8"),
    "all layers extracted / one plain forward and backward": ("extract", "fused", "at most 1.1"),
    "all layers extracted / bare loop of the same work": ("extract", "bare", "at most 1.11"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clips", type=int, default=1, help="clips a batch")
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


def measure(options: argparse.Namespace) -> dict[str, Any]:
    recogniser = load_recogniser(ModelConfig(config=options.config, checkpoint="untrained"), options.device)
    device = recogniser.device
    own = build_mmaction(read_config(options.config), options.config, seed=None).requires_grad_(False).to(device)
    own.load_state_dict(recogniser.module.state_dict())
    stream = np.random.RandomState(0)
    shape = (options.clips, options.frames, options.size, options.size, 3)
    clips = list(stream.randint(0, 256, shape, np.uint8))
    x = recogniser.preprocess(clips)[:, 0]
    classes = [[i % 400] for i in range(options.clips)]
    extractor = Extractor(recogniser, LAYERS, precision=options.precision, batch_size=options.clips)
    half = options.precision != "float32"

    def passed(module: Any, leaf: torch.Tensor) -> None:
        with torch.autocast(device.type, dtype=getattr(torch, options.precision), enabled=half):
            logits = module.cls_head(module.backbone(leaf))
        torch.autograd.grad(logits[:, 0].sum(), leaf)

    def bare() -> None:
        kept: list[torch.Tensor] = []

        def start_here(raw: torch.Tensor) -> torch.Tensor:
            kept.append(raw.detach().requires_grad_())
            return kept[0]

        with (
            watched(recogniser.module, recogniser.layer_aliases["early"], start_here),
            torch.autocast(device.type, dtype=getattr(torch, options.precision), enabled=half),
        ):
            logits = recogniser.logits(x)
        torch.autograd.grad(logits[:, 0].sum(), kept)

    ways: dict[str, Callable[[], Any]] = {
        "mmaction": lambda: passed(own, x.clone().requires_grad_()),
        "fused": lambda: passed(recogniser.module, x.clone().requires_grad_()),
        "bare": bare,
        "extract": lambda: extractor.extract(clips, classes),
    }
    # With frozen parameters, backward has one product for each of forward's.
    operations = 2 * count(lambda: recogniser.logits(x))
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, way in ways.items():
            seconds[name].append(timed(way, options.clock, device))
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
        "operations": operations,
        "operations_per_second": rate,
        "matmul_operations_per_second": limit,
        "matmul_over_model": limit / rate,
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
    """Operations of matrix products, attention and convolutions: two for each multiply-add."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        way()
    return counter.get_total_flops()


def matmul_rate(device: torch.device, options: argparse.Namespace) -> float:
    """What the device reaches in one large matrix product of the same type: the practical limit."""
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
    lines.append("")
    lines.append(
        f"{result['operations'] / 1e9:.0f} G operations a pass; {result['operations_per_second'] / 1e9:.1f} G/s, and "
        f"{result['matmul_operations_per_second'] / 1e9:.1f} G/s in one large matrix product: "
        f"{result['matmul_over_model']:.2f} times as many"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

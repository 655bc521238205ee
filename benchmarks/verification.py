"""Measure the cost of checking every byte that is read against its SHA-256, as a share of the stage that reads it.

    python benchmarks/verification.py --out benchmarks/results/verification.json

Writes full-size clips (32 frames of 224 x 224, from the planted world's renderer, stored like the stage `clips` does)
as one shard. Measures processor time of this process, since the machine may be shared. The parts take turns, and each
ratio is the median over the repeats:

- `check`: hash the shard's file, as `vtcav run` and `vtcav verify` do for each file of a complete stage;
- `read` and `read_checked`: read the whole table without and with verification;
- `heads` and `heads_checked`: read the columns that later stages need for planning;
- `decode`: decode the clips, the minimum that the stage `activations` does with them before its model runs.

So `check / decode` is an upper bound for the share of checking in that stage. With `--model`, the packaged recogniser's
forward passes are measured too, as part of the stage's time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from environment import show

from vtcav_ray.runs.damage import broken_files
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.video.codec import decode_clip, encode_clip

FRAMES, SIDE = 32, 224


def clip(rng: np.random.Generator) -> np.ndarray:
    """Draw a smooth scene with a moving square and camera noise. It compresses about like real frames."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    frames = np.empty((FRAMES, SIDE, SIDE, 3), np.uint8)
    a, b = rng.uniform(0.01, 0.1, 2)
    scene = 127 + 80 * np.sin(a * x)[..., None] * np.cos(b * y)[..., None] * np.array([1, 0.7, 0.4])
    for t in range(FRAMES):
        frame = scene + rng.normal(0, 3, scene.shape)
        frame[60 + 2 * t : 100 + 2 * t, 80:120] = rng.uniform(0, 255, 3)
        frames[t] = frame.clip(0, 255)
    return frames


def seconds(call: Callable[[], Any]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def measure(clips: int, repeats: int, model: bool) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    encoded = [encode_clip(clip(rng)) for _ in range(clips)]
    rows = pa.table(
        {
            "clip_id": [f"c{i}" for i in range(clips)],
            "video_id": [f"v{i}" for i in range(clips)],
            "encoding": [kind for kind, _ in encoded],
            "encoded": pa.array([data for _, data in encoded], pa.binary()),
        }
    )
    with tempfile.TemporaryDirectory() as place:
        stage_folder(Folder(place), "clips", "k").commit("s", ShardOutput({"clips": rows}))
        shards = stage_folder(Folder(place), "clips", "k").shards()
        size = shards["s"]["clips/s.parquet"]["bytes"]

        def stage(verify: bool) -> StageFolder:
            return stage_folder(Folder(place, verify=verify), "clips", "k")

        parts: dict[str, Callable[[], Any]] = {
            "check": lambda: broken_files(stage(True), shards),
            "read": lambda: stage(False).read("clips"),
            "read_checked": lambda: stage(True).read("clips"),
            "heads": lambda: stage(False).read("clips", columns=["clip_id", "video_id"]),
            "heads_checked": lambda: stage(True).read("clips", columns=["clip_id", "video_id"]),
            "decode": lambda: [decode_clip(kind, data) for kind, data in encoded],
        }
        if model:
            parts["forward"] = forward(encoded)
        times: dict[str, list[float]] = {name: [] for name in parts}
        for _ in range(repeats):
            for name, call in parts.items():
                times[name].append(seconds(call))
    stage_time = [d + f for d, f in zip(times["decode"], times.get("forward", [0.0] * repeats), strict=True)]
    ratios = {
        "check_of_stage": [a / b for a, b in zip(times["check"], stage_time, strict=True)],
        "checked_reading_of_stage": [
            (checked - plain) / b
            for checked, plain, b in zip(times["read_checked"], times["read"], stage_time, strict=True)
        ],
    }
    return {
        "clips": clips,
        "bytes": size,
        "seconds": {name: statistics.median(found) for name, found in times.items()},
        **{name: statistics.median(found) for name, found in ratios.items()},
        "check_mb_per_second": size / 1e6 / statistics.median(times["check"]),
        "stage_is": "decode and forward" if model else "decode alone",
        "repeats": repeats,
    }


def forward(encoded: list[tuple[str, bytes]]) -> Callable[[], Any]:
    from vtcav_ray.activations.extract import Extractor
    from vtcav_ray.config import ModelConfig
    from vtcav_ray.models import load_recogniser

    extractor = Extractor(load_recogniser(ModelConfig(), seed=0), ["late"], batch_size=8)
    clips = [decode_clip(kind, data) for kind, data in encoded]
    return lambda: extractor.extract(clips)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = measure(args.clips, args.repeats, args.model)
    show(found, args.out)


if __name__ == "__main__":
    main()

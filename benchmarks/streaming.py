"""Measure the cost of moving frames through the object store: decoding as a separate operator or inside the actor.

    python benchmarks/streaming.py VIDEO... --copies 2

Both ways decode the same videos and pass every frame to a "model" that only sums its pixels, so only the path of the
frames differs. Apart: Ray Data tasks decode, and blocks of 32 frames go through the object store to actors (as in Ray's
own examples). In one actor: it receives a video's name and decodes the video itself, in a thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy

from vtcav_ray.config import ResourcesConfig
from vtcav_ray.engine import ray_session
from vtcav_ray.video.decode import iter_frames

BLOCK_FRAMES = 32
CPUS = 2


class Model:
    """A stand-in model that sums the pixels of its input."""

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"frames": np.array([len(batch["image"])]), "sum": np.array([int(batch["image"].sum(dtype=np.int64))])}


class DecodingModel:
    """The same, with two videos decoded in parallel in this process."""

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        def one(path: str) -> tuple[int, int]:
            count = total = 0
            for _, frame in iter_frames(path):
                count += 1
                total += int(frame.sum(dtype=np.int64))
            return count, total

        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(one, batch["path"]))
        return {"frames": np.array([sum(c for c, _ in found)]), "sum": np.array([sum(s for _, s in found)])}


def decode(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for _, frame in iter_frames(row["path"]):
        yield {"image": frame}


def measure(dataset: Any) -> dict[str, float]:
    began = time.perf_counter()
    rows = dataset.take_all()
    seconds = time.perf_counter() - began
    frames = int(sum(row["frames"] for row in rows))
    return {
        "seconds": seconds,
        "frames": frames,
        "frames_per_second": frames / seconds,
        "sum": sum(r["sum"] for r in rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--copies", type=int, default=1)
    args = parser.parse_args()
    items = [{"path": path} for path in args.videos * args.copies]
    pixels = sum(frame.nbytes for path in args.videos for _, frame in iter_frames(path)) * args.copies
    with ray_session(ResourcesConfig(num_cpus=CPUS)):
        source = lambda: ray.data.from_items(items, override_num_blocks=len(items))  # noqa: E731
        in_actor = source().map_batches(
            DecodingModel, batch_size=2, compute=ActorPoolStrategy(size=1), num_cpus=CPUS, batch_format="numpy"
        )
        apart = (
            source()
            .flat_map(decode, num_cpus=1)
            .map_batches(Model, batch_size=BLOCK_FRAMES, compute=ActorPoolStrategy(size=1), num_cpus=1)
        )
        found = {"in one actor": measure(in_actor), "apart": measure(apart)}
    assert found["in one actor"].pop("sum") == found["apart"].pop("sum"), "the two ways saw other frames"
    found["gigabytes_that_cross_the_store"] = {"in one actor": 0.0, "apart": pixels / 1e9}  # type: ignore[assignment]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

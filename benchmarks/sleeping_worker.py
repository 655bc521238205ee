"""A worker that sleeps for a model's compute time and writes output of a recogniser's size: for `scaling.py`."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa

from vtcav_ray.runs.stage import Shard, make_shards
from vtcav_ray.store.commits import ShardOutput

CLIPS_A_SHARD = 32
LAYERS, DIM = 4, 768  # Swin-T with the projection `mean`


class Sleeper:
    """A worker that takes time without using a core. Its output has the size of four layers' activations."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, rows: pa.Table) -> ShardOutput:
        time.sleep(self.seconds)
        count = rows.num_rows * LAYERS
        vectors = pa.FixedSizeListArray.from_arrays(np.random.default_rng(0).random(count * DIM, np.float32), DIM)
        table = pa.table(
            {
                "clip_id": pa.array(np.repeat(rows["clip_id"].to_numpy(zero_copy_only=False), LAYERS)),
                "layer": pa.array([f"layer{i}" for i in range(LAYERS)] * rows.num_rows),
                "vector": vectors,
            }
        )
        return ShardOutput({"activations": table}, metrics={"clips": rows.num_rows})


def shards(count: int) -> list[Shard]:
    rows = pa.table({"clip_id": [f"clip{i:06d}" for i in range(count * CLIPS_A_SHARD)]})
    return make_shards(rows, CLIPS_A_SHARD)

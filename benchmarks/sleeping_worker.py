"""Workers that sleep for a model's compute time, for `scaling.py` (output of a recogniser's size) and `fleet.py`."""

from __future__ import annotations

import functools
import hashlib
import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from vtcav_ray.runs.stage import Shard, make_shards
from vtcav_ray.store.commits import ShardOutput

CLIPS_A_SHARD = 32
LAYERS, DIM = 4, 768  # Swin-T with the projection `mean`
VIDEOS_A_SHARD = 64


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


class Mortal:
    """A worker that sleeps, writes one row per video, and dies over some shards the first time that it has them.

    Args:
        seconds: mean time of a shard; a shard's own time is between half and one and a half of it.
        deaths: one shard in so many kills this process, at a random moment.
        marks: local folder; a file in it says that a shard has killed a process.
    """

    def __init__(self, seconds: float, deaths: int, marks: str) -> None:
        self.seconds, self.deaths, self.marks = seconds, deaths, Path(marks)
        # What the start of this process cost, with all imports; Ray's own are most of it.
        self.start_cpu = time.process_time()

    def __call__(self, rows: pa.Table) -> ShardOutput:
        began, name = time.time(), rows["video_id"][0].as_py()
        # By name: a shard takes as long, and is as deadly, wherever and whenever it runs.
        rng = random.Random(hashlib.sha256(name.encode()).digest())
        seconds, mark = self.seconds * rng.uniform(0.5, 1.5), self.marks / name
        if rng.randrange(self.deaths) == 0 and not mark.exists():
            mark.touch()
            threading.Timer(seconds * rng.random(), os.kill, (os.getpid(), signal.SIGKILL)).start()
        time.sleep(seconds)
        table = pa.table({"video_id": rows["video_id"], "track_id": pa.array([0] * rows.num_rows, pa.int32())})
        metrics = {
            "began": began,
            "ended": time.time(),
            "pid": os.getpid(),
            "videos": rows.num_rows,
            "start_cpu": self.start_cpu,
            "torch": float("torch" in sys.modules),
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        return ShardOutput({"tracks": table}, metrics=metrics)


def mortal(seconds: float, deaths: int, marks: str) -> Callable[[], Mortal]:
    return functools.partial(Mortal, seconds, deaths, marks)


def video_shards(count: int) -> list[Shard]:
    rows = pa.table({"video_id": [f"video{i:07d}" for i in range(count * VIDEOS_A_SHARD)]})
    return make_shards(rows, VIDEOS_A_SHARD)

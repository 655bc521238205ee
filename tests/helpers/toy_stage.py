"""A stage without a model, run or resumed as `vtcav run` does it: `toy_stage.py FOLDER [SHARDS] [ACTORS]`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pyarrow as pa
import ray.cloudpickle

from vtcav_ray.config import ResourcesConfig, StageResources
from vtcav_ray.engine import ray_session, run_shards
from vtcav_ray.runs.stage import Shard, make_shards
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder

SHARDS = 24
ROWS_A_SHARD = 3


class Toy:
    """A slow worker that leaves a mark for each finished shard, so that repeated work is visible."""

    def __init__(self, marks: str, seconds: float = 0.25) -> None:
        self.marks, self.seconds = Path(marks), seconds

    def __call__(self, rows: pa.Table) -> ShardOutput:
        (self.marks / f"pid-{os.getpid()}").touch()
        time.sleep(self.seconds)
        (self.marks / f"did-{rows['video_id'][0].as_py()}-{time.time_ns()}").touch()
        squares = [n * n for n in rows["n"].to_pylist()]
        return ShardOutput({"tracks": pa.table({"video_id": rows["video_id"], "n": squares})}, metrics={"videos": 3})


def shards(shards: int = SHARDS) -> list[Shard]:
    count = shards * ROWS_A_SHARD
    rows = pa.table({"video_id": [f"v{i:04d}" for i in range(count)], "n": list(range(count))})
    return make_shards(rows, ROWS_A_SHARD)


def undisturbed(folder: Path) -> StageFolder:
    """Run the same stage without Ray."""
    folder.mkdir()
    output = stage_folder(Folder(str(folder)), "tracks", "k")
    for shard in shards():
        output.commit(shard.name, Toy(str(folder), 0.0)(shard.rows))
    return output


def complete(
    folder: str,
    resources: ResourcesConfig,
    stage_resources: StageResources = StageResources(max_actors=3),
    count: int = SHARDS,
) -> StageFolder:
    """Complete the stage: compute the missing shards."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[Toy.__module__])
    output = stage_folder(Folder(folder), "tracks", "k")
    if output.complete:
        return output
    # As in the pipeline. Importing the pipeline itself would import every model's package and delay the kills.
    there = output.committed()
    with ray_session(resources, keep=True):
        missing = [shard for shard in shards(count) if shard.name not in there]
        for _ in run_shards(missing, lambda: Toy(folder), output, stage_resources):
            pass
    output.finish({}, {"warnings": []})
    return output


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(exist_ok=True)
    numbers = [int(given) for given in sys.argv[2:]]
    pool = StageResources(max_actors=numbers[1] if len(numbers) > 1 else 3)
    complete(sys.argv[1], ResourcesConfig(num_cpus=3), pool, numbers[0] if numbers else SHARDS)

"""A stage that is all engine and no model, brought to completion by the pipeline's own code: `toy_stage.py FOLDER`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pyarrow as pa
import ray.cloudpickle

from vtcav_ray import pipeline
from vtcav_ray.config import ResourcesConfig, StageResources, parse_config
from vtcav_ray.engine import LazySession
from vtcav_ray.stage import Context, Shard, Stage, Work, make_shards
from vtcav_ray.storage import Folder, ShardOutput, StageFolder, stage_folder

SHARDS = 24
ROWS_A_SHARD = 3


class Toy:
    """Takes its time; leaves a mark each time that it ends a shard, so that work done twice is seen."""

    def __init__(self, marks: str, seconds: float = 0.25) -> None:
        self.marks, self.seconds = Path(marks), seconds

    def __call__(self, rows: pa.Table) -> ShardOutput:
        (self.marks / f"pid-{os.getpid()}").touch()
        time.sleep(self.seconds)
        (self.marks / f"did-{rows['video_id'][0].as_py()}-{time.time_ns()}").touch()
        squares = [n * n for n in rows["n"].to_pylist()]
        return ShardOutput({"tracks": pa.table({"video_id": rows["video_id"], "n": squares})}, metrics={"videos": 3})


def shards() -> list[Shard]:
    count = SHARDS * ROWS_A_SHARD
    return make_shards(pa.table({"video_id": [f"v{i:03d}" for i in range(count)], "n": list(range(count))}), 3)


def undisturbed(folder: Path) -> StageFolder:
    """The same stage without Ray."""
    folder.mkdir()
    output = stage_folder(Folder(str(folder)), "tracks", "k")
    for shard in shards():
        output.commit(shard.name, Toy(str(folder), 0.0)(shard.rows))
    return output


def complete(
    folder: str, resources: ResourcesConfig, stage_resources: StageResources = StageResources(max_actors=3)
) -> StageFolder:
    """Bring the stage to completion: all of it, or what is missing."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[Toy.__module__])
    work = Work(shards(), lambda: Toy(folder), stage_resources)
    stage = Stage("tracks", (), 1, lambda context: {}, lambda context: work)
    config = parse_config({"videos": {"uri": "nowhere"}, "out": folder})
    context = Context(config, Folder(folder), {})
    output = stage_folder(context.run, "tracks", "k")
    with LazySession(resources) as session:
        pipeline._complete(stage, context, output, session, pipeline.Silence())
    return output


if __name__ == "__main__":
    complete(sys.argv[1], ResourcesConfig(num_cpus=3))

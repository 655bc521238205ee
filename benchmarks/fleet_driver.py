"""The driver of `fleet.py`, in its own process: it imports what the driver of a stage imports, so its memory is that.

python benchmarks/fleet_driver.py ADDRESS FOLDER --shards 3750 --seconds 9
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ray.cloudpickle
import sleeping_worker

from vtcav_ray.config import ResourcesConfig, StageResources
from vtcav_ray.engine import ray_session, run_shards
from vtcav_ray.store.commits import StageFolder, stage_folder
from vtcav_ray.store.folder import Folder

DEATHS = 200  # one shard in so many kills its process


def output_of(out: str) -> StageFolder:
    return stage_folder(Folder(out), "tracks", "fleet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("out")
    parser.add_argument("--shards", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    ray.cloudpickle.register_pickle_by_value(sleeping_worker)
    resources = StageResources(cpus=1, gpus=1)  # as many actors as the cluster holds
    worker = sleeping_worker.mortal(options.seconds, DEATHS, str(Path(options.out) / "deaths"))
    with ray_session(ResourcesConfig(address=options.address)):
        shards = sleeping_worker.video_shards(options.shards)
        for summary in run_shards(shards, worker, output_of(options.out), resources):
            print(summary["shard"], flush=True)


if __name__ == "__main__":
    main()

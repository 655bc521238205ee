"""Measure the engine on 64 simulated GPUs whose actors die and whose nodes leave and come, with stand-ins that sleep.

    python benchmarks/fleet.py --shards 3750 --seconds 9 --out benchmarks/results/fleet.json

Eight simulated nodes of eight GPUs each (Ray's `Cluster`, in one process tree on this machine; the GPUs are numbers, no
device is used) run one actor per GPU. A shard is 64 videos, so 3,750 shards are Kinetics-400 (240,000 videos). A worker
sleeps for a shard's time, between half and one and a half of `--seconds`, and writes one row per video. One shard in
200 kills its actor's process, at a random moment of its first start. Nodes leave without a warning, at even intervals,
and another joins after `--away` seconds.

Not yet run to its end, so `RESULTS.md` has no figure of it.

What is simulated: the compute time, the GPUs and the network between nodes. What is real: Ray's processes, the engine
(`vtcav_ray.engine.run_shards`), its bookkeeping of attempts, the commits, and the driver as its own process.

- `efficiency`: seconds that committed shards slept, over seconds of GPUs that were there; from the moment at which
  `WARM` of the actors have worked until the last shard ends. An actor's process takes seconds of one core to start, so
  64 starts on two cores take minutes that a cluster, which starts 8 on each node, does not need.
  `efficiency_with_start` counts from the driver's first shard.
- `efficiency_to_the_tail`: the same, until fewer shards are left than GPUs.
- `driver_mb`: resident memory of the driver after each tenth of the shards.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import ray.cloudpickle
import sleeping_worker
from environment import environment, write
from ray.cluster_utils import Cluster
from scaling import add_node

from vtcav_ray.config import ResourcesConfig, StageResources
from vtcav_ray.engine import ray_session, run_shards
from vtcav_ray.store.commits import StageFolder, stage_folder
from vtcav_ray.store.folder import Folder

GPUS_A_NODE = 8
DEATHS = 200  # one shard in so many kills its process
WARM = 0.95
STORE_BYTES = 80 * 2**20  # of a node; shards are names


def drive(address: str, out: str, shards: int, seconds: float) -> None:
    """Be the driver: stream the shards, as a stage of a run does."""
    ray.cloudpickle.register_pickle_by_value(sleeping_worker)
    resources = StageResources(cpus=1, gpus=1, max_actors=1000)
    worker = sleeping_worker.mortal(seconds, DEATHS, str(Path(out) / "deaths"))
    with ray_session(ResourcesConfig(address=address)):
        for summary in run_shards(sleeping_worker.video_shards(shards), worker, output_of(out), resources):
            print(summary["shard"], flush=True)


def output_of(out: str) -> StageFolder:
    return stage_folder(Folder(out), "tracks", "fleet")


@dataclass
class Fleet:
    """Nodes that leave and come, and for how long each was there."""

    nodes: int
    rng: random.Random
    spans: list[list[float]] = field(default_factory=list)  # [joined, left] by `time.time()`

    def __post_init__(self) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.there: list[tuple[Any, list[float]]] = []
        for _ in range(self.nodes):
            self.join()

    def join(self) -> None:
        node = add_node(self.cluster, GPUS_A_NODE, num_gpus=GPUS_A_NODE, object_store_memory=STORE_BYTES)
        span = [time.time(), float("inf")]
        self.spans.append(span)
        self.there.append((node, span))

    def leave(self) -> None:
        node, span = self.there.pop(self.rng.randrange(len(self.there)))
        span[1] = time.time()
        self.cluster.remove_node(node, allow_graceful=False)

    def gpu_seconds(self, begin: float, end: float) -> float:
        return GPUS_A_NODE * sum(max(0.0, min(left, end) - max(joined, begin)) for joined, left in self.spans)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the driver, let nodes leave and come, and return the figures."""
    fleet = Fleet(options.nodes, random.Random(options.seed))
    began, memory, done, away_until = time.time(), [], 0, None
    leaving = [options.shards * (i + 1) // (options.leaves + 1) for i in range(options.leaves)]
    command = [
        sys.executable, __file__, "--drive", fleet.cluster.address, str(folder),
        "--shards", str(options.shards), "--seconds", str(options.seconds),
    ]  # fmt: skip
    try:
        with (folder / "driver.log").open("wb") as log:
            driver = subprocess.Popen(command, stdout=log, stderr=log)
        process = psutil.Process(driver.pid)
        while (status := driver.poll()) is None:
            time.sleep(1.0)
            done = len(output_of(str(folder)).committed())
            try:
                memory.append((done, process.memory_info().rss))
            except psutil.NoSuchProcess:
                continue
            if leaving and done >= leaving[0] and away_until is None:
                leaving.pop(0)
                fleet.leave()
                away_until = time.time() + options.away
                print(f"{time.time() - began:.0f} s: a node left, {done} shards done", flush=True)
            elif away_until is not None and time.time() > away_until:
                fleet.join()
                away_until = None
                print(f"{time.time() - began:.0f} s: a node came, {done} shards done", flush=True)
    finally:
        fleet.cluster.shutdown()
    if status:
        sys.exit((folder / "driver.log").read_text(encoding="utf-8")[-4000:])
    return {**figures(options, folder, fleet), "seconds_in_all": round(time.time() - began), **_driver(memory)}


def figures(options: argparse.Namespace, folder: Path, fleet: Fleet) -> dict[str, Any]:
    output = output_of(str(folder))
    slept = [record["metrics"] for record in output.records()]
    begins, ends = sorted(one["began"] for one in slept), sorted(one["ended"] for one in slept)
    gpus = options.nodes * GPUS_A_NODE
    firsts = sorted({(one["pid"]): one["began"] for one in sorted(slept, key=lambda o: -o["began"])}.values())
    warm = firsts[min(int(WARM * gpus), len(firsts)) - 1]
    tail = ends[max(0, len(ends) - gpus)]
    videos = output.read("tracks", columns=["video_id"])
    assert videos is not None
    seen = Counter(videos["video_id"].to_pylist())
    wanted = options.shards * sleeping_worker.VIDEOS_A_SHARD

    def efficiency(begin: float, end: float) -> float:
        busy = sum(max(0.0, min(one["ended"], end) - max(one["began"], begin)) for one in slept)
        return round(busy / fleet.gpu_seconds(begin, end), 3)

    return {
        "gpus": gpus,
        "nodes": options.nodes,
        "shards": len(slept),
        "videos": wanted,
        "shard_seconds": options.seconds,
        "deaths": len(list((folder / "deaths").iterdir())),
        "nodes_that_left": sum(left < ends[-1] for _, left in fleet.spans),
        "efficiency": efficiency(warm, ends[-1]),
        "efficiency_to_the_tail": efficiency(warm, tail),
        "efficiency_with_start": efficiency(begins[0], ends[-1]),
        "seconds_until_warm": round(warm - begins[0], 1),
        "seconds_of_work": round(ends[-1] - warm, 1),
        "tail_seconds": round(ends[-1] - tail, 1),
        "shards_per_second": round(sum(end > warm for end in ends) / (ends[-1] - warm), 2),
        "rows_lost": wanted - len(seen),
        "rows_doubled": sum(seen.values()) - len(seen),
    }


def _driver(memory: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Return the driver's memory after each tenth of the shards, and its growth from the second tenth to the last."""
    most = max(done for done, _ in memory)
    by_tenth = [max(rss for done, rss in memory if done <= most * tenth / 10) / 1e6 for tenth in range(1, 11)]
    return {
        "driver_mb": [round(mb) for mb in by_tenth],
        "driver_growth": round(by_tenth[-1] / by_tenth[1], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=3750)
    parser.add_argument("--seconds", type=float, default=9.0, help="mean of a shard")
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--leaves", type=int, default=4, help="number of nodes that leave")
    parser.add_argument("--away", type=float, default=15.0, help="seconds until another node joins")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--drive", nargs=2, metavar=("ADDRESS", "FOLDER"), help="be the driver")
    options = parser.parse_args()
    if options.drive:
        drive(*options.drive, options.shards, options.seconds)
        return
    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        Path(name, "deaths").mkdir()
        found = {"load_at_start": round(os.getloadavg()[0], 1), **measure(options, Path(name))}
    print(json.dumps(found, indent=1), flush=True)
    if options.out:
        write(options.out, {"environment": environment(), "fleet": found})
    if found["rows_lost"] or found["rows_doubled"]:
        sys.exit("rows were lost or doubled")


if __name__ == "__main__":
    main()

"""Measure the engine on 64 simulated GPUs whose actors die and whose nodes leave and come, with stand-ins that sleep.

    python benchmarks/fleet.py --shards 3750 --seconds 9 --out benchmarks/results/fleet.json

Eight simulated nodes of eight GPUs each (Ray's `Cluster`, in one process tree on this machine; the GPUs are numbers, no
device is used) run one actor per GPU. A shard is 64 videos, so 3,750 shards are Kinetics-400 (240,000 videos). A worker
sleeps for a shard's time, between half and one and a half of `--seconds`, and writes one row per video. A GPU takes
about 14 s for 64 videos (0.22 s per video, as in `enough.py`); 9 s keep a run on two cores below a quarter of an hour,
and ask more of the driver. One shard in 200 kills its actor's process, at a random moment of its first start. Nodes
leave without a warning, at even intervals, and another joins after `--away` seconds.

What is simulated: the compute time, the GPUs and the network between nodes. What is real: Ray's processes, the engine
(`vtcav_ray.engine.run_shards`), its bookkeeping of attempts, the commits, and the driver as its own process
(`fleet_driver.py`). Three settings of Ray fit 80 processes onto two cores: workers are not started before an actor
needs one, and run at the niceness of the rest.

- `efficiency`: seconds that committed shards slept, over seconds of GPUs that were there; from the moment at which
  `WARM` of the actors have worked until the last shard ends. An actor's process takes seconds of one core to start
  (`start_cpu_seconds`), so 64 starts on two cores take minutes that a cluster, which starts 8 on each node, does not
  need. `efficiency_with_start` counts from the driver's first shard.
- `efficiency_to_the_tail`: the same, until fewer shards are left than GPUs.
- `pause_seconds`: from the end of a shard to the begin of the next one in the same process: the commit, the driver's
  decision, Ray's call, and the record of the start.
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
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

import psutil
import sleeping_worker
from environment import environment, write
from fleet_driver import output_of
from ray.cluster_utils import Cluster
from scaling import add_node

GPUS_A_NODE = 8
WARM = 0.95
STORE_BYTES = 80 * 2**20  # of a node; shards are names
# Of Ray's processes, which read them from the environment.
LIGHT = {"RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0", "RAY_worker_niceness": "0"}


@dataclass
class Fleet:
    """Nodes that leave and come, and for how long each was there."""

    nodes: int
    rng: random.Random
    spans: list[list[float]] = field(default_factory=list)  # [joined, left] by `time.time()`

    def __post_init__(self) -> None:
        os.environ |= LIGHT
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


class Watch:
    """What is looked at each second while the driver runs."""

    def __init__(self) -> None:
        self.began = time.time()
        self.memory: list[tuple[int, int]] = []  # (shards done, bytes of the driver)
        self.load: list[float] = []

    def look(self, process: psutil.Process, done: int) -> None:
        self.load.append(os.getloadavg()[0])
        try:
            self.memory.append((done, process.memory_info().rss))
        except psutil.NoSuchProcess:
            return  # it has just ended

    def say(self, what: str, done: int) -> None:
        print(f"{time.time() - self.began:.0f} s: {what}, {done} shards done", flush=True)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the driver, let nodes leave and come, and return the figures."""
    watch = Watch()
    fleet = Fleet(options.nodes, random.Random(options.seed))
    watch.say(f"{options.nodes} nodes are there", 0)
    try:
        status = follow(options, folder, fleet, watch)
    finally:
        fleet.cluster.shutdown()
    if status:
        sys.exit((folder / "driver.log").read_text(encoding="utf-8")[-4000:])
    return {
        **figures(options, folder, fleet),
        "seconds_in_all": round(time.time() - watch.began),
        "load_mean": round(mean(watch.load), 1),
        **_driver(watch.memory),
    }


def follow(options: argparse.Namespace, folder: Path, fleet: Fleet, watch: Watch) -> int:
    """Run the driver to its end, let nodes leave and come meanwhile, and return its exit status."""
    leaving = [options.shards * (i + 1) // (options.leaves + 1) for i in range(options.leaves)]
    script = str(Path(__file__).with_name("fleet_driver.py"))
    size = ["--shards", str(options.shards), "--seconds", str(options.seconds)]
    command = [sys.executable, script, fleet.cluster.address, str(folder), *size]
    with (folder / "driver.log").open("wb") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log)
    process, away_until, next_said = psutil.Process(driver.pid), None, 0.1
    while (status := driver.poll()) is None:
        time.sleep(1.0)
        done = len(output_of(str(folder)).committed())
        watch.look(process, done)
        if done >= next_said * options.shards:
            watch.say("at work", done)
            next_said += 0.1
        if leaving and done >= leaving[0] and away_until is None:
            leaving.pop(0)
            fleet.leave()
            away_until = time.time() + options.away
            watch.say("a node left", done)
        elif away_until is not None and time.time() > away_until:
            fleet.join()
            away_until = None
            watch.say("a node came", done)
    return status


def figures(options: argparse.Namespace, folder: Path, fleet: Fleet) -> dict[str, Any]:
    output = output_of(str(folder))
    slept = [record["metrics"] for record in output.records()]
    begins, ends = sorted(one["began"] for one in slept), sorted(one["ended"] for one in slept)
    gpus = options.nodes * GPUS_A_NODE
    firsts = sorted({(one["pid"]): one["began"] for one in sorted(slept, key=lambda o: -o["began"])}.values())
    warm = firsts[min(int(WARM * gpus), len(firsts)) - 1]
    tail = ends[max(0, len(ends) - gpus)]
    pauses = _pauses(slept)

    def efficiency(begin: float, end: float) -> float:
        busy = sum(max(0.0, min(one["ended"], end) - max(one["began"], begin)) for one in slept)
        return round(busy / fleet.gpu_seconds(begin, end), 3)

    return {
        "gpus": gpus,
        "nodes": options.nodes,
        "shards": len(slept),
        "shard_seconds": options.seconds,
        "deaths": len(list((folder / "deaths").iterdir())),
        "nodes_that_left": sum(left < ends[-1] for _, left in fleet.spans),
        "processes": len(firsts),
        "start_cpu_seconds": round(median(one["start_cpu"] for one in slept), 2),
        "worker_mb": round(max(one["memory"] for one in slept) / 1e6),
        "workers_with_torch": sum(one["torch"] > 0 for one in slept),
        "efficiency": efficiency(warm, ends[-1]),
        "efficiency_to_the_tail": efficiency(warm, tail),
        "efficiency_with_start": efficiency(begins[0], ends[-1]),
        "seconds_until_warm": round(warm - begins[0], 1),
        "seconds_of_work": round(ends[-1] - warm, 1),
        "tail_seconds": round(ends[-1] - tail, 1),
        "shards_per_second": round(sum(end > warm for end in ends) / (ends[-1] - warm), 2),
        "pause_seconds": {
            "median": round(median(pauses), 3),
            "p90": round(quantiles(pauses, n=10)[-1], 3),
            "share": round(sum(pauses) / (sum(pauses) + sum(one["ended"] - one["began"] for one in slept)), 4),
        },
        **_rows(options, output.read("tracks", columns=["video_id"])),
    }


def _pauses(slept: Sequence[Mapping[str, float]]) -> list[float]:
    """Return the seconds between consecutive shards of each process."""
    by_process: dict[float, list[Mapping[str, float]]] = defaultdict(list)
    for one in sorted(slept, key=lambda one: one["began"]):
        by_process[one["pid"]].append(one)
    return [after["began"] - before["ended"] for some in by_process.values() for before, after in pairwise(some)]


def _rows(options: argparse.Namespace, videos: Any) -> dict[str, int]:
    """Return how many rows are there, were lost, or are there twice."""
    seen = Counter(videos["video_id"].to_pylist())
    wanted = {
        row for shard in sleeping_worker.video_shards(options.shards) for row in shard.rows["video_id"].to_pylist()
    }
    assert len(wanted) == options.shards * sleeping_worker.VIDEOS_A_SHARD
    assert not seen.keys() - wanted, "rows of videos that are not in the corpus"
    return {
        "videos": len(wanted),
        "rows_lost": len(wanted - seen.keys()),
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
    options = parser.parse_args()
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

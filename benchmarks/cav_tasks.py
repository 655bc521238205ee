"""Measure how much faster two cores train CAVs than one, as Ray tasks by layer and block.

    python benchmarks/cav_tasks.py [--objects 80] [--clips 50] [--random-sets 50] [--dim 768] [--repeats 3]

The task is the audit that the CAV stage was built for: 80 objects x 2 kinds x 3 layers x 50 random sets of 50 clips
against 50, that is 24,000 CAVs and their null, with curves, on random activations. It uses the stage's own plan,
shards, worker and actors, on one CPU and on two in turn, each in a separate process and Ray. Two ratios of wall seconds
are given: from the first actors' first commits to the last (steady), and from the call to the end, with actor startup.

The driver and Ray's own processes run on the same cores as the actors, and cores share caches and memory. So the same
shards also run without Ray, in one plain process and in one process per CPU at once: the limit of the machine.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from environment import RESULTS, spread, write

from vtcav_ray import tables
from vtcav_ray.cavs.stage import CavWorker, cav_shards, read_plan
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.engine.session import ray_session
from vtcav_ray.engine.stream import run_shards
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.records import COMMITS
from vtcav_ray.store.vectors import vector_array

LAYERS = ("early", "middle", "late")
KINDS = ("spatial", "spatiotemporal")
CLASS_CLIPS = 2000  # not used by any CAV


def config_of(folder: Path, random_sets: int, cpus: int) -> Config:
    return parse_config(
        {
            "name": "cav tasks",
            "out": str(folder),
            "videos": {"uri": "videos"},
            "activations": {"layers": list(LAYERS)},
            "cavs": {"random_sets": random_sets, "relative": []},
            "resources": {"num_cpus": cpus},
        }
    )


def write_activations(folder: Path, objects: int, clips: int, dim: int) -> None:
    rows = [("concept", f"object{i}", kind, f"{i}/{v}") for i in range(objects) for kind in KINDS for v in range(clips)]
    rows += [("random", f"random/{kind}", kind, f"r/{v}") for kind in KINDS for v in range(10 * clips)]
    rows += [("class", f"class{i % 40}", "full", f"c/{i}") for i in range(CLASS_CLIPS)]
    set_, name, kind, video = (list(column) for column in zip(*rows, strict=True))
    rng = np.random.default_rng(0)
    for layer in LAYERS:
        vectors = rng.normal(size=(len(rows), dim)).astype(np.float32)
        table = pa.table(
            {
                "clip_id": ["/".join(row) for row in rows],
                "set": set_,
                "name": name,
                "kind": kind,
                "video_id": video,
                "layer": [layer] * len(rows),
                "views": pa.array([1] * len(rows), pa.int32()),
                "model": ["none"] * len(rows),
                "vector": vector_array(vectors),
            },
            schema=tables.activations(dim),
        )
        activations_of(folder).commit(layer, ShardOutput({f"activations/layer={layer}": table}))


def activations_of(folder: Path) -> StageFolder:
    return stage_folder(Folder(str(folder)), "activations", "k")


def stage_alone(before: Path, cpus: int, random_sets: int) -> dict[str, float]:
    """Train the CAVs of all layers on `cpus` CPUs. Called in a separate process."""
    with tempfile.TemporaryDirectory(prefix="cav_tasks_") as folder:
        config = config_of(Path(folder), random_sets, cpus)
        activations, output = activations_of(before), stage_folder(Folder(folder), "cavs", "k")
        began = time.perf_counter()
        plan = read_plan(activations, LAYERS[0], config, None)
        shards = cav_shards(activations, LAYERS, plan)
        planned = time.perf_counter()
        with ray_session(config.resources):
            ready = time.perf_counter()
            make = functools.partial(CavWorker, config, activations)
            done = list(run_shards(shards, make, output, config.resources.statistics))
            ended = time.perf_counter()
        at = sorted(path.stat().st_mtime for path in (Path(output.folder.url) / COMMITS).glob("*.json"))
        assert len(done) == len(at) == len(shards)
        return {
            "cavs": float(len(plan.jobs) * len(LAYERS)),
            "shards": float(len(shards)),
            "plan_s": planned - began,
            "actors_and_shards_s": ended - ready,
            "shards_per_s_steady": (len(at) - cpus) / (at[-1] - at[cpus - 1]),
            "worker_s": sum(one["seconds"] for one in done),
            "driver_cpu_s": time.process_time(),
        }


def plainly(before: Path, random_sets: int, share: int, shares: int) -> dict[str, float]:
    """Process every `shares`th shard in this process, without Ray."""
    with tempfile.TemporaryDirectory(prefix="cav_tasks_") as folder:
        config = config_of(Path(folder), random_sets, 1)
        activations, output = activations_of(before), stage_folder(Folder(folder), "cavs", "k")
        shards = cav_shards(activations, LAYERS, read_plan(activations, LAYERS[0], config, None))
        worker = CavWorker(config, activations)
        began = time.perf_counter()
        for shard in shards[share::shares]:
            output.commit(shard.name, worker(shard.rows))
        return {"seconds": time.perf_counter() - began}


def in_processes(words: list[str], shares: int) -> list[dict[str, float]]:
    """Run this file once per share, all at the same time, and return what each printed last."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *words, "--shares", str(shares), "--share"]
    started = [
        subprocess.Popen([*command, str(share)], stdout=subprocess.PIPE, text=True, env=environment)
        for share in range(shares)
    ]
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("a process of the benchmark failed: see above")
    return [json.loads(text.splitlines()[-1]) for text in said]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=80)
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--random-sets", type=int, default=50)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpus", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS / "cav_tasks.json")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--share", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--shares", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(stage_alone(options.one, options.cpus[0], options.random_sets)))
        return
    if options.plain is not None:
        print(json.dumps(plainly(options.plain, options.random_sets, options.share, options.shares)))
        return
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="cav_tasks_") as folder:
        write_activations(Path(folder), options.objects, options.clips, options.dim)
        for repeat in range(options.repeats):
            for cpus in options.cpus:
                sets = ["--random-sets", str(options.random_sets)]
                (one,) = in_processes(["--one", folder, "--cpus", str(cpus), *sets], 1)
                plain = max(part["seconds"] for part in in_processes(["--plain", folder, *sets], cpus))
                found.append({"repeat": repeat, "cpus": cpus, **one, "plain_processes_s": plain})
                print(found[-1], flush=True)
    least, most = min(options.cpus), max(options.cpus)
    few, many = ([one for one in found if one["cpus"] == cpus] for cpus in (least, most))
    both = list(zip(few, many, strict=True))
    ratios = {
        "steady": spread([b["shards_per_s_steady"] / a["shards_per_s_steady"] for a, b in both]),
        "with_start": spread([a["actors_and_shards_s"] / b["actors_and_shards_s"] for a, b in both]),
        "plain_processes": spread([a["plain_processes_s"] / b["plain_processes_s"] for a, b in both]),
    }
    print(f"{most} CPUs over {least}: {ratios}")
    asked = {name: getattr(options, name) for name in ("objects", "clips", "random_sets", "dim")}
    write(options.out, {"asked": asked, "runs": found, "times_faster": ratios})


if __name__ == "__main__":
    main()

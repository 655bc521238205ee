"""Measure how a run scales with videos, workers and nodes, and project to all of Kinetics.

    python benchmarks/scaling.py videos      50, 500 and 5,000 rendered videos: seconds, peak memory, bytes written
                                             (--sizes 500: only this; earlier results of the others are kept)
    python benchmarks/scaling.py workers     1 and 2 workers on this machine, in turns
    python benchmarks/scaling.py nodes       1, 2, 4 and 8 simulated nodes, with a stand-in that sleeps for the model
    python benchmarks/scaling.py projection  Kinetics-400 and -700 on 1, 8 and 64 GPUs (`projection.py`)
    python benchmarks/scaling.py --missing   only steps missing from the JSON, with the same settings
    python benchmarks/scaling.py --check     1 and 2 nodes, small: fails if the efficiency fell; writes nothing.
                                             For a quiet machine: `make bench-smoke` checks only counts

Every step (a number of videos, workers or nodes) is written to `results/scaling.json` as soon as it is measured, and
replaces an earlier one. So an interrupted run resumes with `--missing`. Settings that change what is compared (shards
per node, their seconds, videos of **workers**) restart their part: try them with `--out`.

- **videos** and **workers** run `vtcav run --until activations` as a separate process on a Ray cluster that this
  process started, on a planted world of short clips (16 frames of 64 x 64, one object; each video has its own seed, so
  all are distinct; rendering takes 22 ms of one core per video). The stages are deliberately light: the detector sees
  64 pixels (128 in **workers**, for enough work), one layer is kept, and a fifth of the videos give random clips, so
  clips and activations grow as well (a real run caps them). Stages after the activations don't grow with the videos.
  `steady_shards_per_second` starts when one shard per worker is committed, so worker startup is excluded.
- **nodes** streams shards of a sleeping worker through the engine that a run uses (`vtcav_ray.engine.run_shards`),
  committed to disk with the size of Swin-T's activations. The number of shards per node is the same for any number of
  nodes. Efficiency: shards per second and node, relative to one node.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import ray
import ray.cloudpickle
import sleeping_worker
from environment import RESULTS, environment, moment, read, spread, write
from peaks import Peaks
from ray.cluster_utils import Cluster

from vtcav_ray.config import ResourcesConfig, StageResources
from vtcav_ray.engine import ray_session, run_shards
from vtcav_ray.runs.run import Run
from vtcav_ray.store.commits import StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.records import COMMITS
from vtcav_ray.world import write_world

FILE = RESULTS / "scaling.json"
Keep = Callable[[dict[str, Any]], None]
STAGES = ("tracks", "clips", "activations")
# Time of one shard of activations of configs/quickstart.yaml on one core of two (RESULTS.md: 83 s in 30 shards).
SHARD_SECONDS = 2.8
# `--check`: smallest accepted share of the committed efficiency. With two nodes, first shards overlap with startup.
MARGIN = 0.7


def config_of(world: Path, videos: int, image_size: int) -> dict[str, Any]:
    """Return the config of the light stages."""
    directions = ("up", "down", "left", "right")
    return {
        "videos": {"uri": str(world), "limit": videos},
        "tracks": {"weights": "asset:detector.pt", "image_size": image_size},
        "clips": {
            "frames": 16,
            "interval": 1,
            "size": 64,
            "per_class": 25,
            "min_per_class": 2,
            "per_concept": 20,
            "min_per_concept": 2,
            "random_pool": max(10, videos // 5),
            "concepts": [{"name": d, "motion": {"direction": d}, "kinds": ["context"]} for d in directions],
        },
        "model": {"config": "asset:recogniser.py", "checkpoint": "asset:recogniser.pth"},
        "activations": {"layers": ["late"]},
    }


@contextmanager
def cluster(nodes: Sequence[int]) -> Iterator[Cluster]:
    """Start a Ray cluster on this machine: a head without CPUs, and one node with each of the given numbers of CPUs."""
    found = Cluster()
    try:
        add_node(found, 0, include_dashboard=False)  # the first one is the head
        for cpus in nodes:
            add_node(found, cpus, object_store_memory=100 * 2**20)
        found.wait_for_nodes()
        yield found
    finally:
        found.shutdown()


def add_node(to: Cluster, cpus: int, **options: Any) -> Any:
    """Add a node to a cluster, with Ray's options of a node, and return it."""
    for attempt in range(4):
        try:
            return to.add_node(num_cpus=cpus, **options)
        except Exception as error:  # Ray gives a node 30 s, which a busy machine may exceed, and raises a plain one
            if "timed out during startup" not in str(error) or attempt == 3:
                raise
    raise AssertionError("the last attempt returns or raises")


def run_videos(
    folder: Path, world: Path, videos: int, workers: int, image_size: int = 64, until: Sequence[str] = STAGES
) -> dict[str, Any]:
    """Run the stages up to the last of `until` from scratch. Return seconds and work by stage, peaks and bytes."""
    config = folder / f"{videos}x{workers}.yaml"
    out = folder / f"run{videos}x{workers}"
    shutil.rmtree(out, ignore_errors=True)
    config.write_text(json.dumps(config_of(world, videos, image_size)))  # JSON is YAML
    code = "from vtcav_ray.cli import main; main()"
    command = [sys.executable, "-c", code, "run", str(config), "--out", str(out), "--until", until[-1]]
    log = folder / f"run{videos}x{workers}.log"
    with cluster([workers]) as here, log.open("wb") as output:
        began = time.perf_counter()
        driver = subprocess.Popen(
            command, env={**os.environ, "RAY_ADDRESS": here.address}, stdout=output, stderr=subprocess.STDOUT
        )
        with Peaks(here, driver.pid) as peaks:
            status = driver.wait()
        seconds = time.perf_counter() - began
        memory = peaks.figures()
    if status:
        sys.exit(log.read_text(encoding="utf-8"))
    run = Run(str(out))
    stages = {name: _of_stage(run.stage(name), workers) for name in until}
    return {
        **moment(),
        "videos": videos,
        "workers": workers,
        "seconds": round(seconds, 1),
        "stages": stages,
        "clips": run.table("clips", columns=["clip_id"]).num_rows if "clips" in until else None,
        "failures": run.table("failures").num_rows,
        "bytes_written": sum(p.stat().st_size for p in out.rglob("*") if p.is_file()),
        "memory": memory,
    }


def _of_stage(stage: StageFolder, workers: int) -> dict[str, Any]:
    manifest = stage.manifest()
    ends = sorted(path.stat().st_mtime for path in (Path(stage.folder.url) / COMMITS).glob("*.json"))
    steady = ends[workers - 1 :]
    found = {
        "seconds": round(manifest["seconds"], 2),
        "worker_seconds": round(float(manifest["metrics"]["seconds"]), 2),
        "shards": len(manifest["shards"]),
    }
    if len(steady) > 1 and steady[-1] > steady[0]:
        found["steady_shards_per_second"] = round((len(steady) - 1) / (steady[-1] - steady[0]), 3)
    return found


def part_videos(
    sizes: Sequence[int], keep: Keep, earlier: Sequence[dict[str, Any]] = (), world: Path | None = None
) -> dict[str, Any]:
    """Measure all sizes on one world: `videos.limit` takes a part of it. Sizes measured earlier are kept."""
    runs = list(earlier)
    section: dict[str, Any] = {"runs": runs, "steps": []}
    with tempfile.TemporaryDirectory(prefix="scaling-") as name:
        world = world or Path(name) / "world"
        _render(world, max(sizes))
        for size in sizes:
            found = run_videos(Path(name), world, size, workers=2)
            runs[:] = sorted([*(r for r in runs if r["videos"] != size), found], key=lambda run: int(run["videos"]))
            section["steps"] = [_step(a, b) for a, b in itertools.pairwise(runs)]
            print(json.dumps(found), flush=True)
            keep(section)
    return section


def _render(world: Path, videos: int) -> None:
    began = time.perf_counter()
    write_world(str(world), videos=videos, seed=5, frames=(16, 16), size=(64, 64), distractors=(0, 0))
    print(f"{videos} videos rendered, or found, in {time.perf_counter() - began:.0f} s", flush=True)


def _step(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Return the cost per additional video from one size to the next, and the growth of memory."""
    more = b["videos"] - a["videos"]
    return {
        "from": a["videos"],
        "to": b["videos"],
        "worker_ms_a_video_more": round(1000 * (_work(b) - _work(a)) / more, 2),
        "ms_a_video_more": round(1000 * (b["seconds"] - a["seconds"]) / more, 2),
        "bytes_a_video_more": round((b["bytes_written"] - a["bytes_written"]) / more),
        "memory_growth": {
            what: round(b["memory"][f"{what}_MB"] / a["memory"][f"{what}_MB"], 2)
            for what in ("driver", "largest_worker")
        },
    }


def _work(run: dict[str, Any]) -> float:
    return sum(stage["worker_seconds"] for stage in run["stages"].values())


def part_workers(
    videos: int, repeats: int, keep: Keep, earlier: Sequence[dict[str, Any]] = (), world: Path | None = None
) -> dict[str, Any]:
    """Run the same videos with one worker and with two, in turns, at 128 pixels. Continue from earlier measurements.

    `times_faster`: stage -> seconds of one worker over those of two (including actor startup), and, under `steady`, the
    shards per second of two over those of one; each with median, minimum and maximum over the repeats.
    """
    runs = list(earlier)
    section: dict[str, Any] = {"runs": runs}
    wanted = [(repeat, workers) for repeat in range(repeats) for workers in (1, 2)]
    with tempfile.TemporaryDirectory(prefix="scaling-") as name:
        world = world or Path(name) / "world"
        _render(world, videos)
        for repeat, workers in wanted[len(runs) :]:
            runs.append({"repeat": repeat, **run_videos(Path(name), world, videos, workers, image_size=128)})
            section["times_faster"] = _faster(list(zip(runs[::2], runs[1::2], strict=False)))
            print(json.dumps(runs[-1]), flush=True)
            keep(section)
    return section


def _faster(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for stage in STAGES if pairs else ():
        sides = [(one["stages"][stage], two["stages"][stage]) for one, two in pairs]
        found[stage] = {"seconds": spread([one["seconds"] / two["seconds"] for one, two in sides])}
        rate = "steady_shards_per_second"
        if all(rate in side for pair in sides for side in pair):
            found[stage]["steady"] = spread([two[rate] / one[rate] for one, two in sides])
    return found


def part_nodes(
    counts: Sequence[int], shards_a_node: int, seconds: float, keep: Keep, earlier: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Measure shards per second with the stand-in: overall with actor startup, and after one commit per node.

    Args:
        earlier: runs with the same shards per node and seconds, which are kept.
    """
    ray.cloudpickle.register_pickle_by_value(sleeping_worker)
    runs = list(earlier)
    section = {
        "shard_seconds": seconds,
        "shards_a_node": shards_a_node,
        "clips_a_shard": sleeping_worker.CLIPS_A_SHARD,
        "runs": runs,
    }
    for count in counts:
        found = _of_nodes(count, shards_a_node, seconds)
        runs[:] = sorted([*(r for r in runs if r["nodes"] != count), found], key=lambda run: int(run["nodes"]))
        for way in ("shards_per_second", "shards_per_second_steady"):
            base = runs[0][way] / runs[0]["nodes"]
            for run in runs:
                run[way.replace("shards_per_second", "efficiency")] = round(run[way] / run["nodes"] / base, 3)
        print(json.dumps(found), flush=True)
        keep(section)
    return section


def _of_nodes(count: int, shards_a_node: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="scaling-") as name, cluster([1] * count) as here:
        output = stage_folder(Folder(name), "activations", "sleeper")
        work = sleeping_worker.shards(count * shards_a_node)
        with ray_session(ResourcesConfig(address=here.address)):
            began, cpu = time.perf_counter(), _cpu_seconds()
            for _ in run_shards(work, lambda: sleeping_worker.Sleeper(seconds), output, StageResources()):
                pass
            whole, cpu = time.perf_counter() - began, _cpu_seconds() - cpu
        # Use the times of the commits: the driver receives its events later and in batches.
        ends = sorted(path.stat().st_mtime for path in Path(name).rglob("*.parquet"))
        assert len(ends) == len(work), "one file a shard"
    steady = (len(ends) - count) / (ends[-1] - ends[count - 1])
    return {
        **moment(),
        "nodes": count,
        "shards": len(ends),
        "seconds": round(whole, 2),
        "seconds_after_the_first_round": round(ends[-1] - ends[count - 1], 2),
        "shards_per_second": round(len(ends) / whole, 3),
        "shards_per_second_steady": round(steady, 3),
        "driver_cpu_ms_a_shard": round(1000 * cpu / len(ends), 1),
    }


def _cpu_seconds() -> float:
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)


def complaints(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Return the numbers of nodes whose efficiency is below `MARGIN` of the committed one; empty: none."""
    then = {run["nodes"]: run["efficiency_steady"] for run in before["runs"]}
    return [
        f"{run['nodes']} nodes: efficiency {run['efficiency_steady']}, under {MARGIN} of {then[run['nodes']]}"
        for run in now["runs"]
        if run["efficiency_steady"] < MARGIN * then[run["nodes"]]
    ]


class Results:
    """`results/scaling.json`, written after every step. Results that a run does not measure are kept.

    Args:
        missing: skip steps that were already measured with the same settings.
    """

    def __init__(self, missing: bool, file: Path = FILE) -> None:
        self.missing, self.file, self.all = missing, file, read(file)

    def runs(self, part: str, **settings: Any) -> list[dict[str, Any]]:
        """Return the runs of a part if it was measured with these settings."""
        section = self.all.get(part, {})
        return list(section.get("runs", ())) if settings.items() <= section.items() else []

    def left(self, wanted: Sequence[int], runs: Sequence[dict[str, Any]], name: str) -> list[int]:
        return [n for n in wanted if not self.missing or n not in {run[name] for run in runs}]

    def keep(self, part: str, **more: Any) -> Keep:
        """Return the function that a part calls with its section after each step."""

        def write_down(section: dict[str, Any]) -> None:
            self.all[part] = {"environment": environment(), **more, **section}
            write(self.file, self.all)

        return write_down


def measure(part: str, options: argparse.Namespace, results: Results) -> None:
    """Measure one part, step by step."""
    if part == "videos":
        runs = results.runs("videos")
        if sizes := results.left(options.sizes, runs, "videos"):
            part_videos(sizes, results.keep("videos"), runs, options.world)
    elif part == "workers":
        settings = {"videos": options.videos}
        runs = results.runs("workers", **settings) if results.missing else []
        part_workers(options.videos, options.repeats, results.keep("workers", **settings), runs, options.world)
    elif part == "nodes":
        settings = {"shard_seconds": options.shard_seconds, "shards_a_node": options.shards}
        runs = results.runs("nodes", **settings)
        # Without sleep: the maximum rate of the driver. Kept when the other steps are measured again.
        ceiling = results.all.get("nodes", {}).get("without_sleep")
        more = {"without_sleep": ceiling} if ceiling else {}
        if counts := results.left(options.nodes, runs, "nodes"):
            part_nodes(counts, options.shards, options.shard_seconds, results.keep("nodes", **more), runs)
        if not (ceiling and results.missing):
            found = part_nodes([max(options.nodes)], 40, 0.0, keep=lambda section: None)["runs"][0]
            results.keep("nodes")(results.all["nodes"] | {"without_sleep": found})
    else:
        from projection import projection

        results.keep("projection")(projection(results.all))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the requested parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["videos", "workers", "nodes", "projection", []])
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 500, 5000])
    parser.add_argument("--videos", type=int, default=500, help="of the part `workers`")
    parser.add_argument("--repeats", type=int, default=3, help="of the part `workers`")
    parser.add_argument("--world", type=Path, help="render into this folder and leave it there, for the next time")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--shards", type=int, default=40, help="a node")
    parser.add_argument("--shard-seconds", type=float, default=SHARD_SECONDS)
    parser.add_argument("--missing", action="store_true", help="leave out what was measured with the same settings")
    parser.add_argument("--out", type=Path, default=FILE, help="the JSON")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    if options.check:
        before = read(FILE)["nodes"]
        if found := complaints(part_nodes([1, 2], 6, 1.0, keep=lambda section: None), before):
            sys.exit("\n".join(found))
        return
    results = Results(options.missing, options.out)
    for part in options.parts or ["videos", "workers", "nodes", "projection"]:
        measure(part, options, results)


if __name__ == "__main__":
    main()

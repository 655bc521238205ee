"""Kill things at random moments while the whole pipeline runs, and count rows lost and doubled. Both must be 0.

    python benchmarks/soak.py --kills 20 --seed 0 --out benchmarks/results/soak.json

A Ray cluster of three nodes of one CPU each (and a head with none) runs on this machine; `vtcav run` on a small planted
world runs on it as a process of its own. Every few seconds a driver (SIGKILL, or Ctrl-C), an actor or a whole node is
killed; a driver is started again, and a node that is gone is replaced. A run that comes to its end is compared with an
undisturbed one, row by row and byte by byte, and another begins in a new folder, until there were enough kills.

With `--light SHARDS`, one stage without models (tests/engine/toy_stage.py, 0.25 s a shard) takes the pipeline's place:
the same engine, resume and commits, where loading models would take most of the time between two kills.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from ray.cluster_utils import Cluster

from vtcav_ray.results import Run
from vtcav_ray.storage import Folder, StageFolder, stage_folder
from vtcav_ray.tables import NAMES
from vtcav_ray.world import write_world

NODES = 3
CONFIG: dict[str, Any] = {
    "shard_videos": 4,
    "tracks": {"weights": "asset:detector.pt", "image_size": 128},
    "clips": {
        "frames": 16,
        "interval": 1,
        "size": 64,
        "per_class": 4,
        "min_per_class": 2,
        "per_concept": 4,
        "min_per_concept": 2,
        "random_pool": 12,
        "concepts": [{"name": "up", "motion": {"direction": "up"}, "kinds": ["context"]}],
    },
    "activations": {"layers": ["late"]},
    "cavs": {"random_sets": 3},
    "scores": {"permutations": 100, "bootstrap": 100},
    "resources": {name: {"cpus": 1, "max_actors": NODES} for name in ("detect", "cut", "extract")},
}


@dataclass(frozen=True)
class Outcome:
    """What a whole run wrote: rows by table, and the bytes of each data file."""

    rows: dict[str, Counter[str]]
    files: dict[str, bytes]


class Pipeline:
    """`vtcav run` on a small planted world, all seven stages."""

    def __init__(self, folder: Path) -> None:
        # One world for all runs: a shard's name follows from its videos' files.
        write_world(str(folder / "world"), videos=64, seed=3)
        self.config = folder / "soak.yaml"
        self.config.write_text(json.dumps({**CONFIG, "videos": {"uri": str(folder / "world")}}))  # JSON is YAML

    def command(self, out: Path) -> list[str]:
        code = "from vtcav_ray.cli import main; main()"
        return [sys.executable, "-c", code, "run", str(self.config), "--out", str(out)]

    def outcome(self, out: Path) -> Outcome:
        run = Run(str(out))
        return Outcome(
            {name: counted(run.table(name)) for name in NAMES},
            {f"{stage}/{path}": data for stage in run.keys for path, data in data_files(run.stage(stage)).items()},
        )

    def progress(self, out: Path) -> str:
        try:
            return str(json.loads((out / "run.json").read_text())["status"])
        except FileNotFoundError:
            return "starting"


class Light:
    """One stage without models."""

    def __init__(self, shards: int) -> None:
        self.shards = shards

    def command(self, out: Path) -> list[str]:
        script = Path(__file__).parents[1] / "tests" / "engine" / "toy_stage.py"
        return [sys.executable, str(script), str(out), str(self.shards)]

    def outcome(self, out: Path) -> Outcome:
        stage = stage_folder(Folder(str(out)), "tracks", "k")
        if not stage.complete:
            raise SystemExit(f"{out} says that it is done, and has no manifest")
        return Outcome({"tracks": counted(stage.read("tracks"))}, data_files(stage))

    def progress(self, out: Path) -> str:
        done = len(stage_folder(Folder(str(out)), "tracks", "k").committed())
        return "starting" if not done else "running: tracks"


def start(work: Pipeline | Light, out: Path, address: str) -> subprocess.Popen[bytes]:
    with (out.parent / f"{out.name}.log").open("ab") as log:
        environment = {**os.environ, "RAY_ADDRESS": address}
        return subprocess.Popen(work.command(out), env=environment, stdout=log, stderr=log)


def add_node(cluster: Cluster) -> Any:
    """A node of one CPU. Ray gives a node 30 s to start, which a busy machine may not keep."""
    for attempt in range(4):
        try:
            return cluster.add_node(num_cpus=1)
        except Exception as error:
            if "timed out during startup" not in str(error) or attempt == 3:  # Ray raises a plain Exception
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def counted(table: pa.Table) -> Counter[str]:
    return Counter(json.dumps(row, sort_keys=True, default=repr) for row in table.to_pylist())


def data_files(stage: StageFolder) -> dict[str, bytes]:
    paths = [path for record in stage.records() for path in record["files"] if path.endswith(".parquet")]
    return {path: (Path(stage.folder.url) / path).read_bytes() for path in paths}


def actors_of(cluster: Cluster) -> list[int]:
    """Process ids of this cluster's own actors: children of its raylets that run a shard's code."""
    raylets = {info.process.pid for node in cluster.list_all_nodes() for info in node.all_processes.get("raylet", [])}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            title = (folder / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent in raylets and b"ShardActor" in title:
            found.append(int(folder.name))
    return found


def compare(found: Outcome, wanted: Outcome) -> dict[str, int]:
    pairs = [(found.rows[table], wanted.rows[table]) for table in wanted.rows]
    paths = found.files.keys() | wanted.files.keys()
    return {
        "rows_lost": sum((want - have).total() for have, want in pairs),
        "rows_doubled": sum((have - want).total() for have, want in pairs),
        "files_that_differ": sum(found.files.get(path) != wanted.files.get(path) for path in paths),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gap", type=float, nargs=2, default=(4.0, 14.0), help="seconds between kills")
    parser.add_argument("--light", type=int, metavar="SHARDS")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = Light(args.light) if args.light else Pipeline(folder)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        nodes = [add_node(cluster) for _ in range(NODES)]
        cluster.wait_for_nodes()
        try:
            process = start(work, folder / "undisturbed", cluster.address)
            if process.wait() != 0:
                raise SystemExit((folder / "undisturbed.log").read_text())
            reference = work.outcome(folder / "undisturbed")
            rows = sum(table.total() for table in reference.rows.values())
            print(f"undisturbed: {time.monotonic() - began:.0f} s, {rows} rows")
            kills: list[dict[str, str]] = []
            runs: list[dict[str, Any]] = []
            while len(kills) < args.kills:
                out = folder / f"run{len(runs)}"
                starts, here = 1, len(kills)
                process = start(work, out, cluster.address)
                next_kill = time.monotonic() + rng.uniform(*args.gap)
                while (status := process.poll()) is None or status != 0:
                    if status is not None:  # killed, stopped, or ended by what was killed: again, as a user would
                        starts += 1
                        process = start(work, out, cluster.address)
                    if time.monotonic() > next_kill and len(kills) < args.kills:
                        what = rng.choice(["driver", "ctrl-c", "actor", "actor", "node", "node"])
                        actors = actors_of(cluster)
                        if what == "actor" and actors:
                            os.kill(rng.choice(actors), signal.SIGKILL)
                        elif what == "node":
                            gone = nodes.pop(rng.randrange(len(nodes)))
                            cluster.remove_node(gone, allow_graceful=False)
                            nodes.append(add_node(cluster))
                        elif what in ("driver", "ctrl-c"):
                            process.send_signal(signal.SIGKILL if what == "driver" else signal.SIGINT)
                            process.wait()
                        if what != "actor" or actors:
                            during = work.progress(out)
                            kills.append({"what": what, "during": during})
                            print(f"{time.monotonic() - began:5.0f} s: kill {len(kills)}: {what}, {during}")
                        next_kill = time.monotonic() + rng.uniform(*args.gap)
                    time.sleep(0.1)
                found = compare(work.outcome(out), reference)
                runs.append({"kills": len(kills) - here, "starts": starts, **found})
                print(f"{time.monotonic() - began:5.0f} s: run {len(runs)} is whole after {starts} starts: {found}")
        finally:
            cluster.shutdown()
    summary = {
        "kills": len(kills),
        "by_kind": dict(Counter(kill["what"] for kill in kills)),
        "by_stage": dict(Counter(kill["during"] for kill in kills)),
        "workload": f"light, {args.light} shards" if args.light else "pipeline",
        "rows_in_a_run": rows,
        "rows_lost": sum(run["rows_lost"] for run in runs),
        "rows_doubled": sum(run["rows_doubled"] for run in runs),
        "files_that_differ": sum(run["files_that_differ"] for run in runs),
        "runs": runs,
        "seconds": round(time.monotonic() - began),
        "seed": args.seed,
    }
    print(json.dumps(summary, indent=1))
    if args.out:
        args.out.write_text(json.dumps(summary, indent=1) + "\n")
    if summary["rows_lost"] or summary["rows_doubled"] or summary["files_that_differ"]:
        raise SystemExit("rows were lost, doubled or changed")


if __name__ == "__main__":
    main()

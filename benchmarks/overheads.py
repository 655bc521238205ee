"""Measure what a run on one machine spends beside its stages' work: before the first shard, and between stages.

    python benchmarks/overheads.py --runs 3 --out benchmarks/results/overheads.json
    python benchmarks/overheads.py --runs 3 --before ../other-checkout     both in turns, and whether their tables agree
    python benchmarks/overheads.py --smoke                                 a small run, once

Runs `vtcav run configs/quickstart.yaml` in a separate process. The world is rendered before. All figures come from the
commit records of shards that worker processes computed: a record's file is written when its shard ends, and its
`seconds` say when the shard began.

- `first_shard_began`, `first_shard`: seconds from the start of the command until the first shard begins, and until the
  first shard is committed.
- `gaps`: seconds from the end of a stage's last shard to the begin of the next stage's first one. In them, the driver
  finishes one stage and plans the next, and processes start, import and load models.
- `work_share`: share of the command's wall clock in which at least one shard was in work.
- `share_with_report`: the same, with the time in which the driver made the report.
- `stages_share`: the sum of the stages' seconds in their manifests, over the command's wall clock. It also counts the
  driver's part of a stage: planning its shards and finishing it.
- `busy_share`: the shards' seconds, over the wall clock of as many processes as there are CPUs.
- `processor_seconds`: of the command and its processes, Ray's included. It hardly depends on other work on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from environment import environment, spread, write

from vtcav_ray.config.loading import load_config
from vtcav_ray.runs.run import Run
from vtcav_ray.stages import IN_ORDER
from vtcav_ray.store.folder import Folder
from vtcav_ray.videos.rendered import rendered_world

HERE = Path(__file__).parents[1]
QUICKSTART = HERE / "configs" / "quickstart.yaml"
SMALL = (
    "videos.world.videos=24",
    "clips.per_class=2",
    "clips.min_per_class=2",
    "clips.concepts=[{name: cup, object: cup, kinds: [spatial]}]",
    "clips.min_per_concept=2",
    "clips.per_concept=2",
    "clips.random_pool=8",
    "activations.layers=[late]",
    "cavs.random_sets=3",
    "scores.permutations=100",
)
LOOK_SECONDS = 0.3
COMMAND = "from vtcav_ray.cli import main; main()"
Span = tuple[float, float]  # of a shard, in seconds from the start of the command


def run_once(checkout: Path, world: Path, folder: Path, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Run the quickstart with the code of a checkout, and return its figures.

    Args:
        checkout: folder with `vtcav_ray`.
        world: folder `world` of a run, copied into this one.
        folder: of the run, which is removed first.
        settings: for `--set`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(world, folder / "world")
    options = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-c", COMMAND, "run", str(QUICKSTART), "--out", str(folder), *options]
    load, began = os.getloadavg()[0], time.time()
    with tempfile.TemporaryFile("w+") as said:
        variables = os.environ | {"PYTHONPATH": str(checkout)}
        process = subprocess.Popen(command, cwd=folder, env=variables, stdout=said, stderr=said)
        processor = processor_seconds(process)
        wall = time.time() - began
        if process.returncode:
            said.seek(0)
            sys.exit(said.read())
    run = Run(str(folder))
    manifests = {stage: run.manifest(stage) for stage in run.keys}
    spans, report = spans_of(run, began), manifests["report"]
    reported = (report["started"] - began, report["started"] - began + report["seconds"])
    return {
        "load_at_start": round(load, 1),
        "seconds": round(wall, 2),
        "processor_seconds": round(processor, 1),
        **figures(spans, reported, wall),
        "stages_share": round(sum(manifest["seconds"] for manifest in manifests.values()) / wall, 3),
        "files": {stage: manifest["shards"] for stage, manifest in manifests.items()},
    }


def processor_seconds(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process. Return processor seconds of it and its descendants, as seen at their last look."""
    seen: dict[tuple[int, float], float] = {}
    root = psutil.Process(process.pid)
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            for one in [root, *root.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    times = one.cpu_times()
                    seen[one.pid, one.create_time()] = times.user + times.system
        time.sleep(LOOK_SECONDS)
    return sum(seen.values())


def spans_of(run: Run, began: float) -> dict[str, list[Span]]:
    """Return stage -> the spans of the shards that worker processes computed, for the stages that have some."""
    spans: dict[str, list[Span]] = {}
    for stage in (facts.name for facts in IN_ORDER if facts.name in run.keys):
        output = run.stage(stage)
        for record in output.records():
            if (seconds := record["metrics"].get("seconds")) is not None:
                ended = (Path(output.folder.root) / "_commits" / f"{record['shard']}.json").stat().st_mtime - began
                spans.setdefault(stage, []).append((ended - seconds, ended))
    return spans


def figures(spans: dict[str, list[Span]], report: Span, wall: float) -> dict[str, Any]:
    """Return the figures of a run, from the spans of its shards and of its report, and its wall clock in seconds."""
    begins = {stage: min(begin for begin, _ in found) for stage, found in spans.items()}
    ends = {stage: max(end for _, end in found) for stage, found in spans.items()}
    names, everything = list(spans), [span for found in spans.values() for span in found]
    return {
        "first_shard_began": round(min(begins.values()), 2),
        "first_shard": round(min(end for _, end in everything), 2),
        "gaps": {f"{one} to {other}": round(begins[other] - ends[one], 2) for one, other in itertools.pairwise(names)},
        "after_the_last_shard": round(wall - max(ends.values()), 2),
        "stage_seconds": {stage: round(ends[stage] - begins[stage], 2) for stage in names},
        "work_share": round(covered(everything) / wall, 3),
        "share_with_report": round(covered([*everything, report]) / wall, 3),
        "busy_share": round(sum(end - begin for begin, end in everything) / wall / _cpus(), 3),
        "shards": {stage: len(found) for stage, found in spans.items()},
    }


def covered(spans: Iterable[Span]) -> float:
    """Return the seconds that lie in at least one span."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the median and range of each figure over several runs."""
    plain = (
        "seconds",
        "processor_seconds",
        "first_shard_began",
        "first_shard",
        "after_the_last_shard",
        "work_share",
        "share_with_report",
        "stages_share",
        "busy_share",
    )
    found: dict[str, Any] = {name: spread([run[name] for run in runs]) for name in plain}
    found["gaps"] = {name: spread([run["gaps"][name] for run in runs]) for name in runs[0]["gaps"]}
    found["median_gap"] = round(median(gap for run in runs for gap in run["gaps"].values()), 2)
    return found


def compare(folder: Path, checkouts: dict[str, Path], runs: int, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Run checkouts in turns.

    Args:
        folder: for the runs.
        checkouts: name -> folder.
        runs: number of runs of each.
        settings: for `--set`.

    Returns:
        name -> `summary` and `runs`, and, for several, `same_files`: keys, names and SHA-256 of all tables are equal.
    """
    world = load_config(str(QUICKSTART), list(settings), out=str(folder / "run")).videos.world
    assert world is not None, "the quickstart renders its world"
    rendered_world(world, Folder(str(folder / "template")))
    made: dict[str, list[dict[str, Any]]] = {name: [] for name in checkouts}
    files: list[Any] = []
    for _ in range(runs):
        for name, checkout in checkouts.items():
            found = run_once(checkout, folder / "template" / "world", folder / "run", settings)
            files.append(found.pop("files"))
            made[name].append(found)
            print(name, json.dumps(found), flush=True)
    results: dict[str, Any] = {name: {"summary": summary(found), "runs": found} for name, found in made.items()}
    return results | ({"same_files": all(found == files[0] for found in files)} if len(checkouts) > 1 else {})


def complaints(found: dict[str, Any]) -> list[str]:
    """Return what is wrong with the figures of a run of the stages that use worker processes; empty: nothing."""
    stages = [facts.name for facts in IN_ORDER if facts.resources and facts.command is None]
    wrong = [f"overheads: no shards of {name}" for name in stages if not found["shards"].get(name)]
    if not 0 < found["first_shard_began"] < found["first_shard"] < found["seconds"]:
        wrong.append(f"overheads: the first shard is not inside the run: {found}")
    if min(found["gaps"].values(), default=-1) <= 0 or len(found["gaps"]) != len(stages) - 1:
        wrong.append(f"overheads: gaps {found['gaps']}")
    shares = {name: found[name] for name in ("work_share", "share_with_report", "stages_share")}
    if not 0 < shares["work_share"] < shares["share_with_report"] < shares["stages_share"] < 1:
        wrong.append(f"overheads: shares {shares}")
    return wrong


def smoke() -> list[str]:
    """Return the complaints about one small run."""
    with tempfile.TemporaryDirectory(prefix="overheads-") as name:
        (found,) = compare(Path(name), {"now": HERE}, 1, SMALL)["now"]["runs"]
    return complaints(found)


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--before", type=Path, help="another checkout, measured in turns with this one")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of `vtcav run`")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args(arguments)
    if options.smoke:
        if found := smoke():
            sys.exit("\n".join(found))
        return
    checkouts = {"now": HERE} if options.before is None else {"before": options.before.resolve(), "now": HERE}
    with tempfile.TemporaryDirectory(prefix="overheads-") as name:
        results = compare(Path(name), checkouts, options.runs, options.set)
    for name in checkouts:
        print(name, json.dumps(results[name]["summary"], indent=1))
    if options.out:
        write(options.out, {"environment": environment(), "settings": options.set, **results})
    if results.get("same_files") is False:
        sys.exit("the tables differ")


if __name__ == "__main__":
    main()

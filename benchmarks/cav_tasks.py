"""CAVs as Ray tasks, by layer and block: how much faster are two cores than one?

    python benchmarks/cav_tasks.py [--random-sets 200] [--repeats 3]

The quickstart's world up to its activations, once; then the stage `cavs` alone, on one CPU and on two in turn, each
from a copy of that run folder and in a Ray of its own. Two figures of each: the stage's seconds by the clock, which
include the start of its actors; and CAVs a second once each actor has committed its first block. Prints them and
writes JSON beside the others.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from environment import RESULTS, spread, write

from vtcav_ray.results import Run
from vtcav_ray.storage import COMMITS

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "quickstart.yaml"


def vtcav(out: Path, until: str, settings: list[str]) -> None:
    words = [word for setting in settings for word in ("--set", setting)]
    program = "from vtcav_ray.cli import main; main()"
    command = [sys.executable, "-c", program, "run", str(CONFIG), "--out", str(out), "--until", until, *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def stage_alone(before: Path, cpus: int, random_sets: int) -> dict[str, float]:
    """The stage `cavs` on `cpus` CPUs, from a copy of a run that ends before it."""
    with tempfile.TemporaryDirectory(prefix="cav_tasks_") as folder:
        out = Path(folder) / "run"
        shutil.copytree(before, out)
        vtcav(out, "cavs", [f"resources.num_cpus={cpus}", f"cavs.random_sets={random_sets}"])
        stage = Run(str(out)).stage("cavs")
        manifest = stage.manifest()
        commits = []
        for path in (Path(stage.folder.url) / COMMITS).glob("*.json"):
            metrics = json.loads(path.read_text())["metrics"]
            commits.append((path.stat().st_mtime, float(metrics.get("cavs", 0))))
    commits = sorted(commits)[:-1]  # the last is the entanglement's, made when all others are there
    begun = commits[cpus - 1][0]
    return {
        "cavs": float(manifest["metrics"]["cavs"]),
        "blocks": float(len(commits)),
        "stage_s": float(manifest["seconds"]),
        "cavs_per_s": sum(cavs for _, cavs in commits[cpus:]) / (commits[-1][0] - begun),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random-sets", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "cav_tasks.json")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="cav_tasks_") as folder:
        before = Path(folder) / "before"
        vtcav(before, "activations", [])
        for repeat in range(options.repeats):
            for cpus in (1, 2):
                one = {"repeat": repeat, "cpus": cpus, **stage_alone(before, cpus, options.random_sets)}
                found.append(one)
                print(one, flush=True)
    pairs = list(zip(found[::2], found[1::2], strict=True))
    ratios = {
        "cavs_per_s": spread([two["cavs_per_s"] / one["cavs_per_s"] for one, two in pairs]),
        "stage_s": spread([one["stage_s"] / two["stage_s"] for one, two in pairs]),
    }
    print(f"two CPUs over one: {ratios}")
    write(options.out, {"runs": found, "two_over_one": ratios})


if __name__ == "__main__":
    main()

"""Measure a cluster: run the planted world from rendering to report and print each stage's rate as one JSON object.

    ray job submit --address http://localhost:8265 --working-dir . -- \
        python jobs/benchmark.py --videos 2000 --out s3://bucket/benchmark/2026-11-24

The folder must be new: re-used output would not be measured.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import vtcav_ray
from vtcav_ray.runs.record import RECORD
from vtcav_ray.runs.run import Run
from vtcav_ray.stages import STAGES
from vtcav_ray.store.folder import Folder

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "quickstart.yaml"


def rates(run: Run) -> dict[str, Any]:
    """Return stage -> wall-clock seconds, units, units per second, and the filled share of model batches, if any."""
    found: dict[str, Any] = {}
    for stage, unit in ((stage.name, stage.unit) for stage in STAGES if stage.unit is not None):
        manifest = run.manifest(stage)
        seconds, metrics = manifest["seconds"], manifest["metrics"]
        count = metrics[unit]
        found[stage] = {"seconds": round(seconds, 2), unit: count, f"{unit}_per_s": round(count / seconds, 2)}
        if slots := metrics.get("batch_slots"):
            found[stage]["batch_occupancy"] = round(metrics["batch_items"] / slots, 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=400)
    parser.add_argument("--out", required=True, help="a new run folder, any fsspec URL")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="key=value of the config")
    arguments = parser.parse_args()
    if Folder(arguments.out).exists(RECORD):
        parser.error(f"{arguments.out} already holds a run: re-used output would not be measured")
    overrides = [f"videos.world.videos={arguments.videos}", *arguments.overrides]
    run = vtcav_ray.run(vtcav_ray.load_config(str(CONFIG), overrides, out=arguments.out))
    import ray  # after the run, which starts Ray

    manifest = run.manifest("videos")
    print(json.dumps({"ray": ray.__version__, "versions": manifest["versions"], "stages": rates(run)}))


if __name__ == "__main__":
    main()

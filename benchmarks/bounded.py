"""Measure a stage's memory for several numbers of videos: object store, each actor, driver.

    python benchmarks/bounded.py --videos 50 500 --out benchmarks/results/bounded.json

Runs the stage `tracks` on the planted world (real decoding, the packaged YOLO, ByteTrack), in a separate Ray with two
CPUs and a fresh process for each number of videos. Twice per second, reads the bytes in use in the object store and the
resident memory of the actors and the driver. Prints the peaks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import psutil
import ray
from environment import write
from ray._private.internal_api import node_stats

from vtcav_ray import pipeline
from vtcav_ray.config.loading import parse_config
from vtcav_ray.world import write_world

SHARD_VIDEOS = 10
LOOK_SECONDS = 0.5


class Watcher:
    """Peaks over the duration of a run, in MB."""

    def __init__(self) -> None:
        self.peaks: dict[str, float] = {}
        self.looks = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            if ray.is_initialized():
                self._look()

    def _look(self) -> None:
        me = psutil.Process()
        actors = [p.info["memory_info"].rss for p in psutil.process_iter(["cmdline", "memory_info"]) if _is_actor(p)]
        if not actors:
            return
        node = ray.nodes()[0]
        store = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], include_memory_info=False).store_stats
        self.looks += 1
        for name, value in {
            "object_store": store.object_store_bytes_used,
            "spilled": store.spilled_bytes_total,
            "largest_actor": max(actors),
            "driver": me.memory_info().rss,
        }.items():
            self.peaks[f"{name}_mb"] = max(self.peaks.get(f"{name}_mb", 0.0), round(value / 1e6, 3))


def _is_actor(process: psutil.Process) -> bool:
    """Return whether the process works on a shard for this Ray: its raylet is a descendant of this process."""
    title = " ".join(process.info["cmdline"] or ())
    return ("ShardActor" in title or "ray::shard of" in title) and any(
        parent.pid == psutil.Process().pid for parent in process.parents()
    )


def one(videos: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_world(str(folder / "world"), videos=videos, seed=1)
        config = parse_config(
            {
                "videos": {"uri": str(folder / "world")},
                "tracks": {"weights": "asset:detector.pt", "image_size": 128},
                "shard_videos": SHARD_VIDEOS,
                "resources": {"num_cpus": 2},
                "out": str(folder / "run"),
            }
        )
        with Watcher() as watcher:
            run = pipeline.run(config, until="tracks")
        seconds = run.manifest("tracks")["seconds"]
        frames = run.manifest("tracks")["metrics"]["frames"]
        found = {"videos": videos, "frames": frames, "seconds": round(seconds, 1), "looks": watcher.looks}
        return {**found, **watcher.peaks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, nargs="+", default=[50, 500])
    parser.add_argument("--one", action="store_true", help="in this process, and print it as a line of JSON")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(args.videos[0])))
        return
    runs = []
    for count in args.videos:
        command = [sys.executable, __file__, "--one", "--videos", str(count)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        runs.append(json.loads(printed.splitlines()[-1]))
        print(runs[-1], flush=True)
    if args.out:
        write(args.out, {"runs": runs})


if __name__ == "__main__":
    main()

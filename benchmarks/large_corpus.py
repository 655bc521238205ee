"""Measure the driver's memory and time for a large corpus: the table of videos, copies, the plan, `vtcav plan`.

    python benchmarks/large_corpus.py --videos 650000 --out benchmarks/results/large_corpus.json

The tables have the real schemas and synthetic rows (`tables_at_scale.py`). What the driver of a run does with them is
done here in the same order, in one process: the key of the stage `videos`, the preflight's counts, the shards of
`tracks`, the search for copies, the plan of `clips` (concepts proposed, 30 clips each, 400 classes), and the counts of
`vtcav plan`. `--write-tables` and `--tables` keep the tables for several runs. `--scan SHARDS` reads only so many
shards of tracks for the plan, which bounds the time and not the memory of the corpus. `seconds` are by the clock,
`cpu_seconds` of this process; `peak_mb` is the largest resident memory so far.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from environment import write
from tables_at_scale import RepeatedTracks, labels, opened, write_tables

from vtcav_ray.clips.corpus import Corpus
from vtcav_ray.clips.select import plan_clips
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.planning.estimate import classes_of
from vtcav_ray.preflight.corpus import corpus_checks
from vtcav_ray.runs.stage import make_shards, shard_size
from vtcav_ray.store.records import digest_of_lists
from vtcav_ray.tables import rows_of
from vtcav_ray.tracks.copies import copies_among
from vtcav_ray.video.neighbours import neighbours_of

T = TypeVar("T")


def config() -> Config:
    return parse_config(
        {
            "videos": {"uri": "s3://kinetics"},
            "tracks": {"weights": "yolov8n.pt", "frame_stride": 2},
            "clips": {
                "frames": 32, "interval": 2, "size": 224, "per_class": 30, "per_concept": 30, "random_pool": 300,
                "concepts": "auto",
            },
            "model": {"config": "asset:recogniser.py", "checkpoint": "asset:recogniser.pth"},
        }
    )  # fmt: skip


class Steps:
    """Time and memory of one step after the other."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}

    def do(self, name: str, work: Callable[[], T]) -> T:
        began, cpu = time.perf_counter(), time.process_time()
        made = work()
        self.found[name] = {
            "seconds": round(time.perf_counter() - began, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6),
        }
        print(name, self.found[name], flush=True)
        return made


def measure(folder: str, scan: int | None) -> dict[str, Any]:
    steps, settings, classes = Steps(), config(), labels()
    stages = opened(folder)
    videos = steps.do("read videos", lambda: stages[0].read("videos"))
    assert videos is not None
    tracks = RepeatedTracks(stages[1].stage, stages[1].key, stages[1].folder, videos["video_id"].combine_chunks())
    steps.do("key of videos", lambda: digest_of_lists(rows_of(videos), ()))
    steps.do("preflight", lambda: corpus_checks(videos, settings, classes, classes))
    shards = steps.do("shards of tracks", lambda: make_shards(videos, shard_size(videos.num_rows)))
    steps.do("neighbours", lambda: neighbours_of(videos))
    distance = settings.clips.quality.copy_distance
    assert distance is not None
    signatures = (part for _, part in tracks.iter_tables("signatures"))
    copies = steps.do("copies", lambda: copies_among(videos.select(["video_id", "label"]), signatures, distance))
    parts = itertools.islice((part for _, part in tracks.iter_tables("tracks")), scan)
    plan = steps.do(
        "plan of clips",
        lambda: plan_clips(videos, parts, (), settings.clips, settings.seed, classes, copies=copies),
    )
    steps.do("vtcav plan", lambda: (Corpus.of(videos), classes_of(settings, videos, classes)))
    return {
        "videos": videos.num_rows,
        "shards": len(shards),
        "shards_scanned": min(scan or len(shards), len(shards)),
        "tracks": plan.counts["tracks"],
        "copies": len(copies),
        "clips": plan.rows.num_rows,
        "steps": steps.found,
        **{
            f"planning_{kind}": round(sum(steps.found[name][kind] for name in ("copies", "plan of clips")), 1)
            for kind in ("seconds", "cpu_seconds")
        },
        "load": os.getloadavg()[1],
        "peak_mb": max(step["peak_mb"] for step in steps.found.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=650_000)
    parser.add_argument("--scan", type=int, help="maximum number of shards of tracks to read; default: all")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--write-tables", metavar="FOLDER", help="only write the tables")
    parser.add_argument("--tables", metavar="FOLDER", help="that `--write-tables` has filled; default: a temporary one")
    options = parser.parse_args()
    if options.write_tables:
        write_tables(options.write_tables, options.videos)
        return
    with contextlib.ExitStack() as stack:
        if (folder := options.tables) is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="large-"))
            # In its own process, whose memory is not measured.
            command = [sys.executable, __file__, "--write-tables", folder, "--videos", str(options.videos)]
            subprocess.run(command, check=True)
        found = measure(folder, options.scan)
    print(json.dumps(found, indent=1))
    if options.out:
        write(options.out, found)


if __name__ == "__main__":
    main()

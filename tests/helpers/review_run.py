"""A run with drawn clips: two concepts in two kinds with a control, one class, and one random kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from vtcav_ray import tables
from vtcav_ray.runs.run import Run
from vtcav_ray.store.commits import ShardOutput, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.video.codec import encode_clip

NASTY = "<img src=x onerror=alert(1)> & cup"
CLIPS_EACH = 6


def drawn(seed: int, still: bool, frames: int = 6, size: int = 48) -> np.ndarray:
    """Draw a bright square on a grey ground: uint8 [T, S, S, 3]."""
    clip = np.full((frames, size, size, 3), 60 + 9 * (seed % 7), np.uint8)
    for t in range(frames):
        x = 4 + (0 if still else 5 * t)
        clip[t, 8 + seed : 24 + seed, x : x + 14] = (230, 180 - 20 * (seed % 5), 40)
    return clip


def clip_row(set_: str, name: str, kind: str, i: int, **changes: Any) -> dict[str, Any]:
    video = f"{set_}/video {i:02d}.mp4"
    under = {"concept": f"concept/{name}/{kind}", "class": f"class/{name}"}.get(set_, name)
    encoding, encoded = encode_clip(drawn(i, kind in ("spatial", "frozen")))
    return {
        "clip_id": f"{under}/{video}" + ("" if set_ == "class" else f"#1@{i}"),
        "set": set_,
        "name": name,
        "kind": kind,
        "video_id": video,
        "label": "lift",
        "object": None if set_ == "class" else "cup",
        "motion": None if set_ == "class" else "up",
        "track_id": None if set_ == "class" else 1,
        "frames": list(range(i, i + 6)),
        "num_frames": 6,
        "height": 48,
        "width": 48,
        "encoding": encoding,
        "encoded": encoded,
        **changes,
    }


def all_rows() -> list[dict[str, Any]]:
    rows = []
    for name in ("ball", NASTY):
        for kind in ("spatial", "spatiotemporal"):
            rows += [clip_row("concept", name, kind, i) for i in range(CLIPS_EACH)]
        twins = [row for row in rows if row["name"] == name and row["kind"] == "spatiotemporal"]
        rows += [clip_row("concept", name, "frozen", i, control_of=t["clip_id"]) for i, t in enumerate(twins)]
    rows += [clip_row("class", "lift", "full", i) for i in range(3)]
    rows += [clip_row("random", "random/spatial", "spatial", i) for i in range(4)]
    return sorted(rows, key=lambda row: (row["video_id"], row["clip_id"]))


def write_run(url: str) -> Run:
    """Write a run folder in its state after the stage `clips`, in two shards."""
    folder = Folder(url)
    output = stage_folder(folder, "clips", "k1")
    rows = all_rows()
    for number in range(2):
        output.commit(f"{number}", ShardOutput({"clips": pa.Table.from_pylist(rows[number::2], schema=tables.CLIPS)}))
    output.finish({}, {"warnings": []})
    config = {"name": "drawn <run>", "videos": {"uri": "x"}}
    folder.write_json("run.json", {"config": config, "keys": {"clips": "k1"}})
    return Run(url)

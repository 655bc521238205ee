"""Measure how a setting of `tracks` changes the tracks of real videos, and their cost.

    python benchmarks/track_changes.py --weights yolov8n.pt --videos FOLDER --change frame_stride=auto
    python benchmarks/track_changes.py --weights yolov8n.pt --videos FOLDER --change precision=bfloat16

No label is needed: the reference is the same detector with `frame_stride: 1` in float32. So the figures say how far the
setting changes the result, not how good the detector is. A track of the reference (of at least `--frames-of-a-clip`
frames) is found again if one track of the same label has an intersection over union of at least 0.5 with it in 80 % of
its frames.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from environment import show

from vtcav_ray.config import TracksConfig, VideosConfig
from vtcav_ray.tracks.detect import Detector
from vtcav_ray.tracks.keyframes import box_iou
from vtcav_ray.tracks.track import track_videos
from vtcav_ray.videos.listing import list_videos

FOUND_IOU, FOUND_SHARE = 0.5, 0.8

Track = dict[str, Any]


def overlaps(one: Track, other: Track) -> np.ndarray:
    """Return the intersection over union in each frame of `one`; 0 where `other` has no box."""
    places = {frame: i for i, frame in enumerate(other["frames"])}
    found = np.zeros(len(one["frames"]))
    for i, frame in enumerate(one["frames"]):
        if (j := places.get(frame)) is not None:
            found[i] = box_iou(np.array([one["boxes"][i]]), np.array([other["boxes"][j]]))[0, 0]
    return found


def found_again(reference: Sequence[Track], changed: Sequence[Track], shortest: int) -> list[dict[str, Any]]:
    """Return, for each reference track of at least `shortest` frames, how its best match in `changed` agrees."""
    rows = []
    for track in reference:
        if len(track["frames"]) < shortest:
            continue
        same = [t for t in changed if t["video_id"] == track["video_id"] and t["label"] == track["label"]]
        best = max((overlaps(track, t) for t in same), key=lambda o: float(o.sum()), default=np.zeros(1))
        rows.append({"found": bool((best >= FOUND_IOU).mean() >= FOUND_SHARE), "overlap": best[best > 0]})
    return rows


def agreement(reference: Sequence[Track], changed: Sequence[Track], shortest: int) -> dict[str, float]:
    """Summarize how far the tracks agree, in both directions."""
    forth, back = found_again(reference, changed, shortest), found_again(changed, reference, shortest)
    overlap = np.concatenate([row["overlap"] for row in forth if row["found"]] or [np.zeros(0)])
    return {
        "tracks": len(forth),
        "recall": round(float(np.mean([row["found"] for row in forth])), 4) if forth else 1.0,
        "precision": round(float(np.mean([row["found"] for row in back])), 4) if back else 1.0,
        "mean_iou": round(float(overlap.mean()), 4) if len(overlap) else 0.0,
        "boxes_at_iou_0.9": round(float((overlap >= 0.9).mean()), 4) if len(overlap) else 0.0,
    }


def tracked(
    videos: Sequence[tuple[str, str]], config: TracksConfig, device: str
) -> tuple[list[Track], dict[str, float]]:
    """Track the videos; return the tracks and figures with the processor time."""
    detector = Detector(config, device)
    track_videos(videos[:1], detector, config.model_copy(update={"max_frames": 4}))  # warm-up
    begun = time.process_time()
    table, _, figures = track_videos(videos, detector, config)
    return table.to_pylist(), {**figures, "cpu_seconds": time.process_time() - begun}


def measured(args: argparse.Namespace) -> dict[str, Any]:
    table, _ = list_videos(VideosConfig(uri=args.videos, limit=args.limit))
    videos = list(zip(table["video_id"].to_pylist(), table["uri"].to_pylist(), strict=True))
    base = TracksConfig(weights=args.weights, image_size=args.image_size, max_frames=args.frames, backend="pytorch")
    changes = dict(change.split("=", 1) for change in args.change)
    config = TracksConfig.model_validate({**base.model_dump(), **{k: yaml.safe_load(v) for k, v in changes.items()}})
    reference, was = tracked(videos, base, args.device)
    changed, now = tracked(videos, config, args.device)
    return {
        "settings": vars(args),
        "threads": torch.get_num_threads(),
        "frames": was["frames"],
        "share_of_frames_detected": round(now.get("detected_frames", now["frames"]) / was["frames"], 3),
        "cpu_ms_per_frame": [round(one["cpu_seconds"] / was["frames"] * 1e3, 2) for one in (was, now)],
        "ratio_of_cpu_time": round(was["cpu_seconds"] / now["cpu_seconds"], 2),
        **agreement(reference, changed, args.frames_of_a_clip),
    }


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print the figures, and return them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True)
    parser.add_argument("--videos", required=True, help="folder, glob or manifest")
    parser.add_argument("--change", action="append", required=True, help="KEY=VALUE of the section `tracks`")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--frames", type=int, default=90, help="of each video")
    parser.add_argument("--frames-of-a-clip", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args(arguments)
    report = measured(args)
    show(report, args.out)
    return report


if __name__ == "__main__":
    main()

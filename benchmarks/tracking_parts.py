"""Profile the stage `tracks` to its functions, on one thread, and compare it with the bare network.

    python benchmarks/tracking_parts.py --videos FOLDER [--weights yolov8n.pt] [--image-size 640] [--limit 40]

Times are processor time per frame, measured inside the functions, in the decoders' threads, too. A function's time
contains that of the functions that it calls, so the parts do not add up. The bare network is timed on frames of the
size that most batches have, at several batch sizes. `share_of_bare_network` is its time at the best of them over the
time of everything: no program that runs this network on this core can be faster by more than that.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from environment import show

from vtcav_ray.config import TracksConfig, VideosConfig
from vtcav_ray.tracks import camera, copies, detect, track
from vtcav_ray.tracks.detect import Detector
from vtcav_ray.tracks.freed_memory import keep_freed_memory
from vtcav_ray.tracks.track import track_videos
from vtcav_ray.video.decode import Video
from vtcav_ray.videos.listing import list_videos

PARTS: dict[str, tuple[Any, str]] = {
    "open a video": (Video, "__init__"),
    "convert a frame to RGB": (Video, "_shown"),
    "glance": (camera, "glance"),
    "step: cut, corners and optical flow": (camera, "step"),
    "small picture of the signature": (copies.Pictures, "add"),
    "letterbox": (Detector, "letterbox"),
    "detect": (Detector, "detect"),
    "detect: boxes of a frame": (Detector, "_found"),
    "detect: suppression": (detect, "suppress"),
    "update": (track.VideoTracks, "update"),
    "update: tracker": (track.VideoTracks, "_followed"),
    "update: camera shift": (camera, "camera_shift"),
    "update: sharpness": (camera, "sharpness"),
}


class Stopwatch:
    """Processor seconds by part, over all threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def timing(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed as the part."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.thread_time() - begun
                with self._lock:
                    self.seconds[part] += spent

        return timed


def bare_network(detector: Detector, shape: Sequence[int], batches: Sequence[int], repeats: int) -> dict[int, float]:
    """Return the network's processor milliseconds per frame, by batch size: the least of some repeats.

    Args:
        shape: (height, width) of its input.
    """
    found = {}
    for size in batches:
        batch = torch.randint(0, 256, (size, *shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        spent = []
        for _ in range(repeats + 1):  # the first one warms up
            begun = time.process_time()
            detector._backend(batch, 0.999)
            spent.append(time.process_time() - begun)
        found[size] = round(min(spent[1:]) / size * 1e3, 3)
    return found


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Track the videos with every part timed; return milliseconds per frame and shares."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as the stage's actors do
    table, _ = list_videos(VideosConfig(uri=args.videos, limit=args.limit))
    videos = list(zip(table["video_id"].to_pylist(), table["uri"].to_pylist(), strict=True))
    config = TracksConfig(
        weights=args.weights,
        image_size=args.image_size,
        max_frames=args.frames,
        batch_size=args.batch_size,
        backend=args.backend,
    )
    detector = Detector(config, "cpu")
    track_videos(videos[:2], detector, config.model_copy(update={"max_frames": 4}))  # warm-up
    watch, shapes = Stopwatch(), Counter[tuple[int, ...]]()
    kind = type(detector._backend)
    run = kind.__call__

    def network(backend: Any, batch: torch.Tensor, confidence: float) -> Any:
        shapes[tuple(batch.shape[1:3])] += 1
        return run(backend, batch, confidence)

    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(kind, "__call__", watch.timing("network", network)))
        for part, (owner, name) in PARTS.items():
            patches.enter_context(mock.patch.object(owner, name, watch.timing(part, getattr(owner, name))))
        begun = time.process_time()
        _, failures, figures = track_videos(videos, detector, config)
        spent = time.process_time() - begun
    frames = figures["frames"]
    bare = bare_network(detector, shapes.most_common(1)[0][0], args.batches, args.repeats)
    return {
        "settings": vars(args),
        "frames": frames,
        "failures": len(failures),
        "batches_filled": round(figures["batch_items"] / figures["batch_slots"], 3),
        "ms_per_frame": round(spent / frames * 1e3, 3),
        "parts_ms_per_frame": {
            part: round(s / frames * 1e3, 3) for part, s in sorted(watch.seconds.items(), key=lambda item: -item[1])
        },
        "share_in_network": round(watch.seconds["network"] / spent, 3),
        "bare_network_ms_per_frame": bare,
        "share_of_bare_network": round(min(bare.values()) * frames / spent / 1e3, 3),
    }


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print the figures, and return them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", required=True, help="folder, glob or manifest")
    parser.add_argument("--weights", default="asset:detector.pt", help=".pt")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--frames", type=int, default=90, help="of each video")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--backend", default="pytorch", choices=["pytorch", "onnxruntime"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8, 16, 32])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args(arguments)
    report = measured(args)
    show(report, args.out)
    return report


if __name__ == "__main__":
    main()

"""Compare frames per second and tracks of `track_videos` with Ultralytics' own `track()`.

    python benchmarks/tracking.py --weights yolov8n.pt --videos FOLDER [--frames 60] [--tracker botsort]
    python benchmarks/tracking.py ... --processes 2 --change precision=bfloat16 --change frame_stride=auto

Both run on the same device, on the same frames of the same videos, after a warm-up of each. `track()` runs in one
process, with the threads that Ultralytics gives itself: one fewer than there are cores, at most 8. So does
`track_videos`, or with `--processes`, in this number of processes with one core each, as the stage's actors. The
relevant figures are the ratio and the share of equal boxes: seconds depend mostly on the machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import torch
import yaml
from environment import show

from vtcav_ray.config import TracksConfig, VideosConfig
from vtcav_ray.tracks.detect import Detector
from vtcav_ray.tracks.freed_memory import keep_freed_memory
from vtcav_ray.tracks.track import track_videos
from vtcav_ray.tracks.ultralytics_import import import_ultralytics, prefer_own_nms
from vtcav_ray.videos.listing import list_videos

FrameBoxes = dict[int, dict[int, np.ndarray]]  # frame -> track id -> box xyxy


def patch_torchvision_nms() -> None:
    """Make `import torchvision` work with a CPU-only torch whose operators its wheel does not match.

    `track()` needs it only for `nms`, and Ultralytics has its own equivalent. A working torchvision is not changed.
    """
    if _kept:
        return
    probe = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, check=False)
    if probe.returncode == 0:
        import torchvision

        import_ultralytics()
        prefer_own_nms()  # the set-up may have left only torchvision's Python part
        return
    import_ultralytics()
    from ultralytics.utils.nms import TorchNMS

    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)  # the operators exist only as long as the library object
    import torchvision

    torchvision.ops.nms = TorchNMS.nms


_kept: list[object] = []


def ultralytics_tracks(weights: str, path: str, config: TracksConfig, device: str, model: object = None) -> FrameBoxes:
    """Return what `YOLO.track()` finds in the first `max_frames` frames of a video."""
    import_ultralytics()
    from ultralytics import YOLO

    model = model or YOLO(weights)
    found: FrameBoxes = {}
    results = model.track(  # type: ignore[attr-defined]
        path,
        stream=True,
        tracker=f"{config.tracker}.yaml",
        imgsz=config.image_size,
        conf=config.confidence,
        iou=config.iou,
        device=device,
        verbose=False,
    )
    for index, result in enumerate(results):
        if index >= config.max_frames:
            break
        ids = result.boxes.id
        boxes = result.boxes.xyxy.cpu().numpy()
        found[index] = {} if ids is None else dict(zip(ids.int().tolist(), boxes, strict=True))
    return found


def our_tracks(table: object) -> dict[str, FrameBoxes]:
    """Return a TRACKS table in the same form, by video."""
    found: dict[str, FrameBoxes] = {}
    for row in table.to_pylist():  # type: ignore[attr-defined]
        frames = found.setdefault(row["video_id"], {})
        for index, box in zip(row["frames"], row["boxes"], strict=True):
            frames.setdefault(index, {})[row["track_id"]] = np.array(box)
    return found


def compare(theirs: FrameBoxes, ours: FrameBoxes) -> dict[str, float]:
    """Return the share of boxes that agree within a pixel, and among these the share whose IDs match one to one."""
    pairs: dict[tuple[int, int], int] = {}
    total = same = 0
    worst = 0.0
    for index in sorted(set(theirs) | set(ours)):
        a, b = theirs.get(index, {}), ours.get(index, {})
        total += max(len(a), len(b))
        left = dict(b)
        for their_id, box in a.items():
            if not left:
                break
            our_id = min(left, key=lambda i: float(np.abs(left[i] - box).max()))
            off = float(np.abs(left[our_id] - box).max())
            if off <= 1.0:
                same += 1
                worst = max(worst, off)
                pairs[their_id, our_id] = pairs.get((their_id, our_id), 0) + 1
                del left[our_id]
    one_to_one = sum(
        n
        for (a_id, b_id), n in pairs.items()
        if sum(x == a_id for x, _ in pairs) == 1 and sum(y == b_id for _, y in pairs) == 1
    )
    return {
        "boxes": total,
        "same_box": same / total if total else 1.0,
        "same_id": one_to_one / same if same else 1.0,
        "largest_difference_px": worst,
    }


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True)
    parser.add_argument("--our-weights", help="the same network for `track_videos`, as .onnx; default: --weights")
    parser.add_argument("--names", help="label file, where --our-weights carries no names")
    parser.add_argument("--videos", required=True, help="folder, glob or manifest")
    parser.add_argument("--frames", type=int, default=60, help="of each video")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--tracker", default="bytetrack", choices=["bytetrack", "botsort"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--decoder", default="pyav", choices=["pyav", "torchcodec"], help="of ours")
    parser.add_argument("--open-videos", type=int, default=4)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--no-camera-motion", action="store_true", help="leave out what `track()` does not do")
    parser.add_argument("--processes", type=int, default=1, help="of ours, with one core each; 1: one")
    parser.add_argument("--change", action="append", default=[], help="KEY=VALUE of the section `tracks`, for ours")
    parser.add_argument("--out", type=Path, help="JSON file")
    return parser.parse_args(arguments)


def timed(
    videos: Sequence[tuple[str, str]], detector: Detector, config: TracksConfig, open_videos: int, start: Any = None
) -> tuple[pa.Table, list[Any], dict[str, float]]:
    """Warm up, wait for the other processes at the barrier `start`, and track the videos.

    Returns:
        What `track_videos` does. The figures also have `clock` and `cpu` in seconds.
    """
    track_videos(videos[:2], detector, config.model_copy(update={"max_frames": 4}))
    if start is not None:
        start.wait()
    begun, cpu = time.perf_counter(), time.process_time()
    tracks, failures, figures = track_videos(videos, detector, config, open_videos=open_videos)
    return tracks, failures, {**figures, "clock": time.perf_counter() - begun, "cpu": time.process_time() - cpu}


def _one_process(
    videos: Sequence[tuple[str, str]], config: TracksConfig, args: argparse.Namespace, start: Any, results: Any
) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()  # as the stage's actors do
    results.put(timed(videos, Detector(config, args.device), config, args.open_videos, start))


def in_processes(
    videos: Sequence[tuple[str, str]], config: TracksConfig, args: argparse.Namespace
) -> tuple[pa.Table, list[Any], dict[str, float]]:
    """Track the videos in several processes, every nth in one; `clock` is the time of the slowest."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(args.processes), context.Queue()
    parts = [videos[i :: args.processes] for i in range(args.processes)]
    workers = [context.Process(target=_one_process, args=(part, config, args, start, results)) for part in parts]
    with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):  # as Ray sets it for actors of one core
        for worker in workers:
            worker.start()
    found = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    figures = {name: sum(figures[name] for _, _, figures in found) for name in found[0][2]}
    figures["clock"] = max(figures["clock"] for _, _, figures in found)
    return pa.concat_tables([tracks for tracks, _, _ in found]), [f for _, fs, _ in found for f in fs], figures


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Track the videos both ways; return the times and how far the tracks agree."""
    config = TracksConfig(
        weights=args.our_weights or args.weights,
        names=args.names,
        tracker=args.tracker,
        image_size=args.image_size,
        max_frames=args.frames,
        batch_size=args.batch_size,
        camera_motion=not args.no_camera_motion,
        decoder=args.decoder,
    )
    changes = {k: yaml.safe_load(v) for k, v in (change.split("=", 1) for change in args.change)}
    ours_config = TracksConfig.model_validate({**config.model_dump(), **changes})
    table, _ = list_videos(VideosConfig(uri=args.videos, limit=args.limit))
    videos = list(zip(table["video_id"].to_pylist(), table["uri"].to_pylist(), strict=True))
    detector = Detector(ours_config, args.device)
    patch_torchvision_nms()
    from ultralytics import YOLO

    model = YOLO(args.weights)
    device = str(detector.device)
    warm = config.model_copy(update={"max_frames": 4})
    ultralytics_tracks(args.weights, videos[0][1], warm, device, model)

    begun, their_cpu = time.perf_counter(), time.process_time()
    theirs = {v: ultralytics_tracks(args.weights, uri, config, device, model) for v, uri in videos}
    their_seconds, their_cpu = time.perf_counter() - begun, time.process_time() - their_cpu
    if args.processes > 1:
        tracks, failures, figures = in_processes(videos, ours_config, args)
    else:
        tracks, failures, figures = timed(videos, detector, ours_config, args.open_videos)
    our_seconds, our_cpu = figures["clock"], figures["cpu"]
    ours = our_tracks(tracks)
    frames = sum(len(f) for f in theirs.values())
    return {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "settings": vars(args),
        "frames": frames,
        "failures": failures,
        "track_frames_per_second": round(frames / their_seconds, 2),
        "track_videos_frames_per_second": round(frames / our_seconds, 2),
        "ratio": round(their_seconds / our_seconds, 2),
        "ratio_of_cpu_time": round(their_cpu / our_cpu, 2),  # steadier than `ratio` on a busy machine without a GPU
        "share_in_detector": round(figures["detect_seconds"] / figures["seconds"], 3),
        **summary({v: compare(theirs[v], ours.get(v, {})) for v, _ in videos}),
    }


def summary(agreement: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Summarize how far the tracks of all videos agree."""
    boxes = sum(a["boxes"] for a in agreement.values())
    return {
        "same_box": round(sum(a["same_box"] * a["boxes"] for a in agreement.values()) / max(boxes, 1), 4),
        "same_id": round(float(np.mean([a["same_id"] for a in agreement.values()])), 4),
        "largest_difference_px": round(max(a["largest_difference_px"] for a in agreement.values()), 3),
        "by_video": agreement,
    }


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print the figures, and return them."""
    args = parsed(arguments)
    report = measured(args)
    show(report, args.out)
    return report


if __name__ == "__main__":
    main()

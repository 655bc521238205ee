"""Part `tracks`: frames per second of our tracking beside Ultralytics' `track()`, on the same device and videos.

The videos are rendered (the planted world), at several sizes. Two detectors: the packaged one (0.55 M parameters),
whose boxes are compared with `track()`'s; and YOLO11n (2.6 M), built from Ultralytics' own YAML with random weights.
Its boxes mean nothing, which changes no speed. Its class scores are shifted and stretched so that each frame gives
some dozens of boxes, as in a full scene.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import tracking

from gpu_parts.part import Part, Target
from gpu_parts.targets import OVER_TRACK
from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import StageError
from vtcav_ray.tracks.detect import Detector
from vtcav_ray.tracks.track import track_videos
from vtcav_ray.tracks.ultralytics_import import import_ultralytics
from vtcav_ray.video.decode import iter_frames
from vtcav_ray.video.gpu_decode import check_torchcodec
from vtcav_ray.world import asset, write_world

PACKAGED, LARGER = DETECTORS = ("packaged detector", "YOLO11n")
YOLO = "yolo11n.yaml"
# Height and width, in order of importance. Kinetics is 256x340 as it is often stored.
CASES = ((LARGER, (360, 640)), (PACKAGED, (360, 640)), (LARGER, (720, 1024)), (LARGER, (256, 340)))
CANDIDATES = 60  # per frame, before suppression
# Of the boxes that either finds. `track()` has one frame per batch, so it uses other kernels, and TF32 rounds: boxes
# move by hundredths of a pixel, and one at the confidence limit may be missing.
SAME_BOXES = Target(0.95)


def run(part: Part) -> None:
    """Measure and note."""
    tracking.patch_torchvision_nms()
    tiny = part.options.tiny
    with tempfile.TemporaryDirectory(prefix="gpu-tracks-") as name:
        folder = Path(name)
        for detector, size in [(each, (64, 64)) for each in DETECTORS] if tiny else CASES:
            part.attempt(
                f"{detector}, {size[1]}x{size[0]}",
                lambda d=detector, s=size: measure_detector(part, folder, d, s),  # type: ignore[misc]
                needs=12,
            )


def videos_of(part: Part, folder: Path, size: tuple[int, int]) -> list[tuple[str, str]]:
    """Render once per size; return (id, path)."""
    count, frames = (2, 16) if part.options.tiny else (24, 60)
    place = folder / f"{size[1]}x{size[0]}"
    if not place.is_dir():
        began = time.perf_counter()
        write_world(str(place), videos=count, seed=3, frames=(frames, frames), size=size, distractors=(2, 2))
        part.note(f"{place.name}, seconds to render {count} videos", time.perf_counter() - began)
    return [(path.stem, str(path)) for path in sorted((place / "videos").glob("*.mp4"))]


def config_of(part: Part, folder: Path, detector: str, video: str) -> TracksConfig:
    """Return the config with the detector's weights and input size."""
    image_size = 64 if part.options.tiny else 640
    if detector == PACKAGED:
        return TracksConfig(weights=str(asset("detector.pt")), image_size=2 * image_size if part.options.tiny else 640)
    weights = folder / "yolo11n.pt"
    if not weights.is_file():
        random_yolo(weights, video, image_size)
    return TracksConfig(weights=str(weights), image_size=image_size)


def random_yolo(path: Path, video: str, image_size: int) -> None:
    """Make a YOLO with random weights whose class scores exceed 0.25 at about `CANDIDATES` places of each frame."""
    import_ultralytics()
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    model: Any = DetectionModel(YOLO, verbose=False).eval()
    frames = [frame for _, frame in zip(range(4), (f for _, f in iter_frames(video)), strict=False)]
    x = torch.stack([torch.from_numpy(f.copy()).permute(2, 0, 1) for f in frames]).float() / 255
    x = torch.nn.functional.interpolate(x, (image_size, image_size))
    with torch.no_grad():
        scores = model(x)[0][:, 4:].logit()  # B K N
        best = scores.amax(1).flatten()
        limit = best.sort(descending=True).values[min(CANDIDATES * len(frames), len(best) - 1)]
        stretch = 1.0 / best.std().clamp_min(1e-6)
        shift = torch.tensor(0.25).logit() - limit * stretch
        for branch in model.model[-1].cv3:  # s -> s * stretch + shift
            branch[-1].weight.mul_(stretch)
            branch[-1].bias.mul_(stretch).add_(shift)
    model.names = {i: f"thing {i}" for i in range(len(model.names))}
    torch.save({"model": model}, path)


def measure_detector(part: Part, folder: Path, detector: str, size: tuple[int, int]) -> None:
    """Measure `track()` on some of the videos, and ours on all by batch, number of open videos and decoder."""
    name = f"{detector}, {size[1]}x{size[0]}"
    videos = videos_of(part, folder, size)
    config = config_of(part, folder, detector, videos[0][1])
    theirs, their_rate = by_track(part, config, videos[: 2 if part.options.tiny else 8])
    cores = len(os.sched_getaffinity(0))
    ways = [(32, cores, "pyav"), (64, cores, "pyav"), (8, cores, "pyav"), (32, 4, "pyav")]
    if part.options.tiny:
        ways = [(2, 2, "pyav"), (4, 2, "pyav")]
    ways += [(ways[0][0], cores, "torchcodec")] if torchcodec_decodes(part) else []
    found: dict[str, Any] = {"track(), frames a second": their_rate, "ours": {}}
    best = 0.0
    for batch, open_videos, decoder in ways:
        given = config.model_copy(update={"batch_size": batch, "decoder": decoder})
        model = Detector(given, part.options.device)
        track_videos(videos[:2], model, given.model_copy(update={"max_frames": 4}), open_videos=open_videos)
        tracks, failures, figures = track_videos(videos, model, given, open_videos=open_videos)
        assert not failures, failures
        rate = figures["frames"] / figures["seconds"]
        best = max(best, rate)
        found["ours"][f"{decoder}, batch {batch}, {open_videos} videos open"] = {
            "frames a second": rate,
            "share of the time in the detector": figures["detect_seconds"] / figures["seconds"],
            "decoding, processor ms a frame": 1e3 * figures["decode_cpu_seconds"] / figures["frames"],
            "videos that PyAV took over": figures.get("handed_over", 0.0),
            "detections a frame": figures["detections"] / figures["frames"],
        }
        if decoder == "pyav":
            ours = tracking.our_tracks(tracks)
    if detector == PACKAGED:
        agreement = [tracking.compare(boxes, ours.get(v, {})) for v, boxes in theirs.items()]
        found["boxes"] = sum(each["boxes"] for each in agreement)
        same = sum(each["same_box"] * each["boxes"] for each in agreement) / max(found["boxes"], 1)
        part.row(f"{name}, boxes that are `track()`'s within a pixel", same, "", SAME_BOXES)
    part.note(name, found)
    part.row(f"{name}, track()", their_rate, "frames/s")
    part.row(f"{name}, ours, best", best, "frames/s")
    part.row(f"{name}, ours over track()", best / their_rate, "times", OVER_TRACK)


def by_track(
    part: Part, config: TracksConfig, videos: list[tuple[str, str]]
) -> tuple[dict[str, tracking.FrameBoxes], float]:
    """Run `track()` on each video in order; return its tracks and frames per second."""
    from ultralytics import YOLO

    model, device = YOLO(config.weights), part.options.device
    tracking.ultralytics_tracks("", videos[0][1], config.model_copy(update={"max_frames": 4}), device, model)
    began = time.perf_counter()
    found = {v: tracking.ultralytics_tracks("", uri, config, device, model) for v, uri in videos}
    return found, sum(len(frames) for frames in found.values()) / (time.perf_counter() - began)


def torchcodec_decodes(part: Part) -> bool:
    """Return whether TorchCodec is installed and decodes on the device."""
    try:
        check_torchcodec(part.options.device)
    except StageError as error:
        part.note("torchcodec", str(error))
        return False
    return True

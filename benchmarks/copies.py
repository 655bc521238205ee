"""Measure how well signatures separate altered copies from unrelated videos, on the planted world and on real videos.

    python benchmarks/copies.py FOLDER... --videos 400 --altered 40

Compares every pair of videos of a corpus: pairs closer than `clips.quality.copy_distance` are false matches (if the
corpus has no copies). Then re-encodes each of the first `--altered` videos of a corpus in several ways, from frames of
at most 320 pixels, and measures the distance to the original.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from vtcav_ray.config import QualityConfig
from vtcav_ray.tracks.camera import glance
from vtcav_ray.tracks.copies import Pictures
from vtcav_ray.video.decode import iter_frames
from vtcav_ray.world import write_world

WIDEST = 320
ALTERED: dict[str, dict[str, Any]] = {
    "H.264, crf 38": {"crf": "38"},
    "H.264, crf 45, half the size": {"crf": "45", "scale": 0.5},
    "MPEG-4, q 20, 0.7 of the size": {"codec": "mpeg4", "qscale": "20", "scale": 0.7},
    "every second frame": {"every": 2},
    "brighter by 20, contrast 0.8": {"contrast": 0.8, "brighter": 20},
    "black bars, 40 pixels each": {"bars": 40},
    "a logo in a corner": {"logo": True},
    "3 % cut off each side": {"inside": 0.03},
    "begins 2 % later": {"begin": 0.02},
    "begins 5 % later": {"begin": 0.05},
    "10 % off at both ends": {"begin": 0.1, "end": 0.1},
}


def altered(frames: list[np.ndarray], codec: str = "libx264", **how: Any) -> bytes:
    """Return the video encoded into another file."""
    begin, end = (int(len(frames) * how.get(name, 0)) for name in ("begin", "end"))
    options = {name: how[name] for name in ("crf", "qscale") if name in how}
    options |= {"preset": "ultrafast"} if codec == "libx264" else {}
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream: Any = None
        for frame in frames[begin : len(frames) - end : how.get("every", 1)]:
            picture = _picture(frame, **how)
            if stream is None:
                stream = out.add_stream(codec, rate=25, options=options)
                stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def _picture(frame: np.ndarray, **how: Any) -> np.ndarray:
    height, width = frame.shape[:2]
    y, x = (int(side * how.get("inside", 0)) for side in (height, width))
    size = tuple(int(side * how.get("scale", 1)) // 2 * 2 for side in (width, height))
    small = cv2.resize(frame[y : height - y, x : width - x], size, interpolation=cv2.INTER_AREA)
    small = np.clip((small.astype(np.float32) - 128) * how.get("contrast", 1) + 128 + how.get("brighter", 0), 0, 255)
    if how.get("logo"):
        small[size[1] // 20 : size[1] * 3 // 20, size[0] * 4 // 5 : size[0] * 19 // 20] = (255, 255, 0)
    bars = how.get("bars", 0)
    return np.ascontiguousarray(np.pad(small, ((bars, bars), (0, 0), (0, 0))).astype(np.uint8))


def signature(video: str | bytes) -> np.ndarray:
    pictures = Pictures()
    for _, frame in iter_frames(video):
        pictures.add(glance(frame).grey)
    return pictures.signature()


def small_frames(path: str) -> Iterator[np.ndarray]:
    for _, frame in iter_frames(path):
        ratio = min(1.0, WIDEST / frame.shape[1])
        size = (round(frame.shape[1] * ratio) // 2 * 2, round(frame.shape[0] * ratio) // 2 * 2)
        yield cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def measure(corpus: str, paths: list[str], count: int, limit: float) -> None:
    own = np.stack([signature(path) for path in paths])
    apart = np.linalg.norm(own[:, None] - own[None], axis=2)[np.triu_indices(len(own), 1)]
    names = [(a, b) for i, a in enumerate(paths) for b in paths[i + 1 :]]
    print(f"{corpus}: {len(paths)} videos, {len(apart)} pairs, {(apart <= limit).sum()} nearer than {limit}; nearest:")
    for place in np.argsort(apart)[:4]:
        print(f"  {apart[place]:.2f}  {' '.join(Path(name).name for name in names[place])}")
    chosen = range(0, len(paths), -(-len(paths) // count))
    frames = {i: list(small_frames(paths[i])) for i in chosen}
    for how, options in ALTERED.items():
        found = np.array([np.linalg.norm(own[i] - signature(altered(frames[i], **options))) for i in chosen])
        print(
            f"  {how:32} {100 * np.mean(found <= limit):4.0f} % of {len(found)} found; "
            f"distance: median {np.median(found):.2f}, largest {found.max():.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", help="with real videos; all of them are one corpus")
    parser.add_argument("--videos", type=int, default=400, help="of the planted world")
    parser.add_argument("--altered", type=int, default=40)
    args = parser.parse_args()
    limit = QualityConfig().copy_distance
    assert limit is not None
    with tempfile.TemporaryDirectory() as place:
        write_world(place, videos=args.videos, seed=1)
        measure("planted world", sorted(map(str, Path(place, "videos").iterdir())), args.altered, limit)
    real = sorted(str(p) for f in args.folders for p in Path(f).rglob("*") if p.suffix in (".mp4", ".mkv", ".webm"))
    if real:
        measure("real videos", real, args.altered, limit)


if __name__ == "__main__":
    main()

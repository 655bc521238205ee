"""Small animations of clips: animated WebP, which every browser plays in an `<img>`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from vtcav_ray.clips.usable import AcceptedRows
from vtcav_ray.store.commits import StageFolder
from vtcav_ray.video.codec import decode_clip
from vtcav_ray.video.webp import animated_webp, evenly

MAX_SIDE = 112  # pixels
MAX_FRAMES = 16
FRAME_MS = 90
QUALITY = 55
CLIPS_PER_CONCEPT = 4
# To keep a report under 30 MB, more concepts than this get fewer and smaller previews (about 12 kB each).
MANY_CONCEPTS = 40
MANY_CLIPS_PER_CONCEPT = 2
MANY_MAX_SIDE = 80
MOST_THREADS = 8


@dataclass(frozen=True)
class Preview:
    """The preview of one clip.

    Attributes:
        clip_id: clip ID.
        video_id: ID of the source video.
        image: animated WebP.
        width, height: size of the image, in pixels.
        frames: number of frames.
    """

    clip_id: str
    video_id: str
    image: bytes
    width: int
    height: int
    frames: int


@dataclass(frozen=True)
class ClipHead:
    """Where a clip is stored (file, row in it), and what it shows: `concept` or `class`, its name, its source video."""

    path: str
    row: int
    set: str
    name: str
    video_id: str


def make_preview(
    clip_id: str, video_id: str, clip_THW3: np.ndarray, max_side: int = MAX_SIDE, max_frames: int = MAX_FRAMES
) -> Preview:
    """Shrink a clip uint8 [T, H, W, 3] to at most `max_side` pixels and `max_frames` frames. Never enlarge it."""
    frames = clip_THW3[evenly(len(clip_THW3), max_frames)]
    height, width = frames.shape[1:3]
    scale = min(1.0, max_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    images = [Image.fromarray(frame).resize(size, Image.Resampling.BOX) for frame in frames]
    if all(np.array_equal(frame, frames[0]) for frame in frames[1:]):
        images = images[:1]  # a still clip is one image
    image = animated_webp(images, FRAME_MS * MAX_FRAMES // max_frames, QUALITY, 4)
    return Preview(clip_id, video_id, image, *size, len(images))


def read_heads(folder: AcceptedRows) -> list[ClipHead]:
    """Read the metadata of all accepted clips of concepts and classes."""
    found = []
    for path in folder.files("clips"):
        # Read all rows: a row's position in the file determines its row group.
        heads = StageFolder.read_file(folder, path, ["clip_id", "set", "name", "kind", "video_id"]).to_pydict()
        for row, (clip_id, set_, name, kind, video) in enumerate(zip(*heads.values(), strict=True)):
            if set_ in ("concept", "class") and clip_id not in folder.left_out:
                found.append(ClipHead(path, row, set_, f"{name}/{kind}" if set_ == "concept" else name, video))
    return found


def previews_of_concepts(folder: AcceptedRows, heads: Sequence[ClipHead]) -> dict[str, list[Preview]]:
    """Return `<name>/<kind>` -> previews of a few of the concept's clips, from different source videos where possible.

    Read only the row groups that hold the frames of a chosen clip.
    """
    by_concept: dict[str, list[ClipHead]] = {}
    for head in heads:
        if head.set == "concept":
            by_concept.setdefault(head.name, []).append(head)
    many = len(by_concept) > MANY_CONCEPTS
    each = MANY_CLIPS_PER_CONCEPT if many else CLIPS_PER_CONCEPT
    chosen = {concept: _of_different_videos(clips, each) for concept, clips in by_concept.items()}
    made = read_previews(folder, [head for of in chosen.values() for head in of], MANY_MAX_SIDE if many else MAX_SIDE)
    return {concept: [made[head] for head in of] for concept, of in chosen.items()}


def read_previews(
    folder: AcceptedRows, heads: Sequence[ClipHead], max_side: int = MAX_SIDE, max_frames: int = MAX_FRAMES
) -> dict[ClipHead, Preview]:
    """Read these clips' frames and return their previews."""
    of_path: dict[str, dict[int, ClipHead]] = {}
    for head in heads:
        of_path.setdefault(head.path, {})[head.row] = head

    def read(path: str) -> list[tuple[int, Preview]]:
        return _read(folder, path, sorted(of_path[path]), max_side, max_frames)

    paths = sorted(of_path)
    # Pillow holds no lock while it encodes.
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as threads:
        return {
            of_path[path][row]: preview
            for path, found in zip(paths, threads.map(read, paths), strict=True)
            for row, preview in found
        }


def _of_different_videos(clips: Sequence[ClipHead], count: int) -> list[ClipHead]:
    first = {head.video_id: head for head in reversed(clips)}
    chosen = [first[video] for video in dict.fromkeys(head.video_id for head in clips)][:count]
    rest = [head for head in clips if head not in chosen]
    return chosen + rest[: count - len(chosen)]


def _read(
    folder: StageFolder, path: str, rows: Sequence[int], max_side: int, max_frames: int
) -> list[tuple[int, Preview]]:
    def read(file: IO[bytes]) -> list[tuple[int, Preview]]:
        found = []
        parquet = pq.ParquetFile(file, pre_buffer=False)
        start = 0
        for group in range(parquet.num_row_groups):
            count = parquet.metadata.row_group(group).num_rows
            wanted = [row for row in rows if start <= row < start + count]
            if wanted:
                part = parquet.read_row_group(
                    group, columns=["clip_id", "video_id", "encoding", "encoded"], use_threads=False
                )
                for row in wanted:
                    clip = part.slice(row - start, 1).to_pylist()[0]
                    frames = decode_clip(clip["encoding"], clip["encoded"])
                    found.append((row, make_preview(clip["clip_id"], clip["video_id"], frames, max_side, max_frames)))
            start += count
        return found

    return folder.reading(path, read)

"""Small animations of a few clips per concept: animated WebP, which every browser plays in an `<img>`."""

from __future__ import annotations

from collections.abc import Sequence
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


def make_preview(clip_id: str, video_id: str, clip_THW3: np.ndarray, max_side: int = MAX_SIDE) -> Preview:
    """Shrink a clip uint8 [T, H, W, 3] to at most `max_side` pixels and MAX_FRAMES frames. Never enlarge it."""
    frames = clip_THW3[evenly(len(clip_THW3), MAX_FRAMES)]
    height, width = frames.shape[1:3]
    scale = min(1.0, max_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    images = [Image.fromarray(frame).resize(size, Image.Resampling.BOX) for frame in frames]
    if all(np.array_equal(frame, frames[0]) for frame in frames[1:]):
        images = images[:1]  # a still clip is one image
    image = animated_webp(images, FRAME_MS, QUALITY, 4)
    return Preview(clip_id, video_id, image, *size, len(images))


def previews_of_clips(folder: AcceptedRows) -> dict[str, list[Preview]]:
    """Return `<name>/<kind>` -> previews of a few of the concept's clips, from different source videos where possible.

    Read the clips' metadata, then only the row groups that hold the frames of a chosen clip.
    """
    places = _choose(folder)
    many = len({concept for _, _, concept in places}) > MANY_CONCEPTS
    made: dict[tuple[str, int], Preview] = {}
    for path in sorted({place[0] for place in places}):
        rows = [row for p, row, _ in places if p == path]
        made |= {
            (path, row): preview for row, preview in _read(folder, path, rows, MANY_MAX_SIDE if many else MAX_SIDE)
        }
    found: dict[str, list[Preview]] = {}
    for path, row, concept in places:
        found.setdefault(concept, []).append(made[path, row])
    return found


def _choose(folder: AcceptedRows) -> list[tuple[str, int, str]]:
    """Return (file, row, concept) of the clips to show."""
    by_concept: dict[str, list[tuple[str, int, str]]] = {}
    for path in folder.files("clips"):
        # Read all rows: a row's position in the file determines its row group.
        heads = StageFolder.read_file(folder, path, ["clip_id", "set", "name", "kind", "video_id"]).to_pydict()
        for row, (clip_id, set_, name, kind, video) in enumerate(zip(*heads.values(), strict=True)):
            if set_ == "concept" and clip_id not in folder.left_out:
                by_concept.setdefault(f"{name}/{kind}", []).append((path, row, video))
    each = CLIPS_PER_CONCEPT if len(by_concept) <= MANY_CONCEPTS else MANY_CLIPS_PER_CONCEPT
    return [
        (path, row, concept)
        for concept, places in by_concept.items()
        for path, row, _ in _of_different_videos(places, each)
    ]


def _of_different_videos(places: Sequence[tuple[str, int, str]], count: int) -> list[tuple[str, int, str]]:
    first = {video: (path, row, video) for path, row, video in reversed(places)}
    chosen = [first[video] for video in dict.fromkeys(video for _, _, video in places)][:count]
    rest = [place for place in places if place not in chosen]
    return chosen + rest[: count - len(chosen)]


def _read(folder: StageFolder, path: str, rows: Sequence[int], max_side: int) -> list[tuple[int, Preview]]:
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
                    found.append((row, make_preview(clip["clip_id"], clip["video_id"], frames, max_side)))
            start += count
        return found

    return folder.reading(path, read)

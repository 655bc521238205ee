"""Tracked boxes on the model's input: source pixels -> stored clip -> resize -> centre crop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vtcav_ray.clips.spans import Track, iter_tracks
from vtcav_ray.models.preprocess import Preprocessor
from vtcav_ray.tables import TRACKS

TRACK_COLUMNS = tuple(TRACKS.names)
MIN_COVER = 0.5  # share of the clip's frames that a track must cover to be the clip's own object


@dataclass(frozen=True)
class Placement:
    """Maps source pixels to the model's input of `height` x `width`: `x * scale_x - left`, `y * scale_y - top`."""

    scale_x: float
    scale_y: float
    left: float
    top: float
    height: int
    width: int

    def boxes(self, boxes_N4: np.ndarray) -> np.ndarray:
        """Convert xyxy boxes `[N, 4]` from source pixels to input pixels. They may extend beyond the input's edges."""
        scale = np.array([self.scale_x, self.scale_y] * 2)
        return boxes_N4 * scale - np.array([self.left, self.top] * 2)


def placement(given: Preprocessor, source: tuple[int, int], stored: tuple[int, int]) -> Placement:
    """Return where a whole source frame lies after it was stored in the clip and preprocessed for the model.

    Args:
        given: the model's preprocessing; its centre crop is used.
        source, stored: (height, width) of the source frame and of the stored clip.
    """
    size = stored
    for resize in given.resizes:
        size = resize.size(*size)
    top = left = 0
    height, width = size
    if given.crop is not None:
        top, left, _ = given.crop.views(*size, center_only=True)[0]
        height, width = given.crop.height, given.crop.width
    return Placement(size[1] / source[1], size[0] / source[0], float(left), float(top), height, width)


def boxes_at(track: Track, frames_T: np.ndarray) -> np.ndarray:
    """Return a track's box at each source frame of the clip, `[T, 4]`: interpolated inside the track, NaN outside."""
    found = np.full((len(frames_T), 4), np.nan)
    inside = (frames_T >= track.frames[0]) & (frames_T <= track.frames[-1])
    for side in range(4):
        found[inside, side] = np.interp(frames_T[inside], track.frames, track.boxes[:, side])
    return found


def own_object(boxes: Sequence[np.ndarray]) -> int | None:
    """Return the index of the track `[T, 4]` that is the clip's own object: the one that moves furthest.

    Only tracks that cover at least half of the frames count. Movement is the extent of the box's centre in box sides:
    an action is rarely about an object that stands still. None: no track covers enough frames.
    """
    best, chosen = -1.0, None
    for number, boxes_T4 in enumerate(boxes):
        there = np.isfinite(boxes_T4[:, 0])
        if there.mean() < MIN_COVER:
            continue
        middle = (boxes_T4[there, :2] + boxes_T4[there, 2:]) / 2
        sides = np.median(boxes_T4[there, 2:] - boxes_T4[there, :2], axis=0)
        extent = float(np.linalg.norm(np.ptp(middle, axis=0)) / max(float(np.sqrt(max(sides.prod(), 0.0))), 1.0))
        if extent > best:
            best, chosen = extent, number
    return chosen


def mask(boxes: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Return float32 `[T, height, width]` in [0, 1]: the largest share of each pixel that one of the boxes covers.

    Args:
        boxes: one `[T, 4]` per track, xyxy; NaN: no box in this frame.
        height, width: of the mask, in pixels.
    """
    found = np.zeros((len(boxes[0]) if boxes else 0, height, width), np.float32)
    for boxes_T4 in boxes:
        for t, (x1, y1, x2, y2) in enumerate(boxes_T4):
            if np.isfinite(x1):
                inside = _covered(y1, y2, height)[:, None] * _covered(x1, x2, width)[None]
                found[t] = np.maximum(found[t], inside)
    return found


def _covered(low: float, high: float, cells: int) -> np.ndarray:
    """Return the share of each unit cell [i, i + 1] that lies between low and high."""
    start = np.arange(cells)
    return np.clip(np.minimum(high, start + 1) - np.maximum(low, start), 0.0, 1.0)


def tracks_by_video(table: pa.Table, videos: set[str]) -> dict[str, list[Track]]:
    """Return video -> its tracks, for the given videos."""
    found: dict[str, list[Track]] = {video: [] for video in videos}
    for track in iter_tracks(table):
        if track.video_id in found and len(track.frames):
            found[track.video_id].append(track)
    return found

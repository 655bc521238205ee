"""Objects alone on grey (`clips.mask`): the masks of the planned clips, and the frames with all else painted over.

Grey is 114 in every channel: the mean of ImageNet's mean colour, which recognisers subtract, so the painted part is
near zero at their input. It is also Ultralytics' padding, on which detectors were trained.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray.clips.kinds import builder_of
from vtcav_ray.errors import InputError, StageError
from vtcav_ray.store.commits import StageFolder
from vtcav_ray.tables import WINDOW
from vtcav_ray.tracks.masks import Mask

GREY = 114
COLUMN = "masks"  # of the plan: the masks of the clip's frames, and of the frames next to those that have none
KIND = pa.list_(pa.struct([("frame", pa.int32()), ("window", WINDOW), ("runs", pa.list_(pa.uint32()))]))


def with_masks(plan: pa.Table, tracks: StageFolder) -> pa.Table:
    """Append to a plan (`vtcav_ray.clips.plan_table.PLAN`) the column `masks`.

    It is null for clips of full frames, and for clips without a track.

    Reads the masks shard by shard, and keeps those of the planned clips.

    Raises:
        StageError: the tracks have no masks.
    """
    rows = plan.select(["kind", "video_id", "track_id", "frames"]).to_pylist()
    wanted: dict[tuple[str, int], list[int]] = defaultdict(list)
    found: list[list[dict[str, Any]] | None] = [None] * len(rows)
    for place, row in enumerate(rows):
        if is_masked(row["kind"]) and row["track_id"] is not None:
            wanted[row["video_id"], row["track_id"]].append(place)
            found[place] = []
    videos = pa.array(sorted({video for video, _ in wanted}), pa.string())
    parts = 0
    for _, part in tracks.iter_tables("masks"):
        parts += 1
        for track in part.filter(pc.is_in(part["video_id"], videos)).to_pylist():
            for place in wanted.get((track["video_id"], track["track_id"]), ()):
                found[place] = list(_near(track, rows[place]["frames"]))
    if not parts:
        raise StageError(
            "`clips.mask` needs masks, and the tracks have none. Set clips.mask to false, or take the tracks from "
            "segmentation weights (`tracks.weights`)."
        )
    return plan.append_column(COLUMN, pa.array(found, KIND))


def is_masked(kind: str) -> bool:
    """Return whether clips of a kind show the object alone: those that crop it. Full frames stay as they are."""
    return not builder_of(kind).full_frame


def _near(track: Mapping[str, Any], frames: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the masks at these frames; for a frame without one, those before and after it."""
    there = np.asarray(track["frames"], np.int64)
    if not len(there):
        return
    after = np.searchsorted(there, frames)
    before = np.searchsorted(there, frames, "right") - 1
    for place in np.unique(np.clip(np.concatenate((before, after)), 0, len(there) - 1)):
        yield {"frame": int(there[place]), "window": track["windows"][place], "runs": track["runs"][place]}


class ObjectMasks:
    """The masks of one clip's object.

    Args:
        stored: of a row's column `masks`.
        frames: int [T], source frames of the clip.
        boxes: float [T, 4] xyxy, of the object in these frames.
        size: (height, width) of the source frames.

    Raises:
        InputError: there is no mask.
    """

    def __init__(
        self, stored: Iterable[Mapping[str, Any]], frames: np.ndarray, boxes: np.ndarray, size: tuple[int, int]
    ) -> None:
        self._masks = {s["frame"]: Mask(tuple(s["window"]), np.asarray(s["runs"])) for s in stored}
        if not self._masks:
            raise InputError("no_mask", "The track of this clip has no mask, so the object can't be shown alone.")
        self._there = np.array(sorted(self._masks))
        self._frames, self._boxes, self._size = frames, boxes, size

    def at(self, position: int) -> np.ndarray:
        """Return bool [H, W]: the object's pixels in the source frame of a position of the clip.

        A frame without a mask gets the shape between those before and after it, moved and scaled as the object is.
        Outside the first and last mask, the nearest one fills the object's box.
        """
        frame = int(self._frames[position])
        mask = self._masks.get(frame)
        if mask is not None:
            return self._drawn(mask.window, mask.bits)
        place = int(np.searchsorted(self._there, frame))
        if place in (0, len(self._there)):
            nearest = self._masks[int(self._there[min(place, len(self._there) - 1)])]
            box = self._boxes[position]
            window = (*np.floor(box[:2]).astype(int), *np.ceil(box[2:]).astype(int))
            return self._drawn(window, _inside([(nearest, 1.0)], window))
        first, last = int(self._there[place - 1]), int(self._there[place])
        share = (frame - first) / (last - first)
        one, other = self._masks[first], self._masks[last]
        between = (1 - share) * np.array(one.window) + share * np.array(other.window)
        window = tuple(np.rint(between).astype(int))
        return self._drawn(window, _inside([(one, 1 - share), (other, share)], window))

    def _drawn(self, window: Sequence[int], bits: np.ndarray) -> np.ndarray:
        """Put a window's pixels into the frame; what lies outside it is cut off."""
        height, width = self._size
        x1, y1, x2, y2 = (int(n) for n in window)
        whole = np.zeros(self._size, bool)
        left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
        if right > left and bottom > top:
            whole[top:bottom, left:right] = bits[top - y1 : bottom - y1, left - x1 : right - x1]
        return whole


def _inside(masks: Sequence[tuple[Mask, float]], window: Sequence[int]) -> np.ndarray:
    """Return the weighted mean shape of masks, stretched to a window: bool [h, w].

    A shape is described by the distance of each pixel to its outline, positive inside; means of distances are shapes
    between the shapes.
    """
    import cv2

    width, height = max(int(window[2]) - int(window[0]), 1), max(int(window[3]) - int(window[1]), 1)
    total = np.zeros((height, width), np.float32)
    for mask, weight in masks:
        bits = cv2.resize(mask.bits.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        inside = np.pad(bits, 1)
        distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3) - cv2.distanceTransform(1 - inside, cv2.DIST_L2, 3)
        total += weight * distance[1:-1, 1:-1]
    return total > 0


def alone(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return a frame (uint8 [H, W, 3]) with grey wherever the mask (bool [H, W]) is off."""
    out = np.full_like(frame, GREY)
    out[mask] = frame[mask]
    return out

"""Masks of detected objects: drawn at the size of the source frame, and stored as runs.

A segmentation model gives small prototypes and, for each box, a weight per prototype. The object is where the weighted
sum is above zero, inside its box (as in Ultralytics' `process_mask_native`). The sum is sampled only under the box, so
a mask costs what its box covers, not the frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from vtcav_ray.tables import MASKS


@dataclass(frozen=True, eq=False)
class Mask:
    """The pixels of one object in one frame.

    Attributes:
        window: (x1, y1, x2, y2) whole pixels of the source frame: the smallest window that holds the object.
        runs: uint32 lengths of the runs of equal pixels in the window, row by row; the first run is off, and may be 0.
    """

    window: tuple[int, int, int, int]
    runs: np.ndarray

    @classmethod
    def of_bits(cls, bits: np.ndarray, left: int = 0, top: int = 0) -> Mask | None:
        """Make a mask from bool [h, w] whose upper left corner is at (left, top); None if no pixel is on."""
        rows, columns = np.flatnonzero(bits.any(1)), np.flatnonzero(bits.any(0))
        if not len(rows):
            return None
        y1, y2, x1, x2 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        flat = bits[y1:y2, x1:x2].ravel()
        edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        runs = np.diff(edges, prepend=0, append=len(flat))
        if flat[0]:
            runs = np.concatenate(([0], runs))
        return cls((left + x1, top + y1, left + x2, top + y2), runs.astype(np.uint32))

    @property
    def bits(self) -> np.ndarray:
        """The window's pixels: bool [h, w].

        Raises:
            ValueError: the runs do not fill the window.
        """
        x1, y1, x2, y2 = self.window
        runs = np.asarray(self.runs, np.int64)
        if x2 <= x1 or y2 <= y1 or runs.sum() != (x2 - x1) * (y2 - y1):
            raise ValueError(f"a mask of {int(runs.sum())} pixels does not fill the window {self.window}")
        return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(y2 - y1, x2 - x1)


def masks_in_source(
    weights: np.ndarray, prototypes: np.ndarray, boxes: np.ndarray, given: Sequence[int], size: Sequence[int]
) -> list[Mask | None]:
    """Draw the masks of one frame's boxes.

    Args:
        weights: float32 [n, k], one row per box.
        prototypes: float32 [k, h, w].
        boxes: float [n, 4] xyxy, pixels of the source frame.
        given: (height, width) of the letterboxed input.
        size: (height, width) of the source frame.

    Returns:
        One mask per box; None for a box without a pixel of the object.
    """
    import cv2

    sums = np.tensordot(np.asarray(weights, np.float32), np.asarray(prototypes, np.float32), 1)
    height, width = size
    ratio = min(given[0] / height, given[1] / width)
    scale, offset = [], []
    for source, whole, cells in ((width, given[1], sums.shape[2]), (height, given[0], sums.shape[1])):
        inner = max(round(source * ratio), 1)
        pad = round((whole - inner) / 2 - 0.1)
        scale.append(inner / source * cells / whole)
        offset.append(pad * cells / whole)
    low = np.clip(np.floor(boxes[:, :2]).astype(int), 0, [width - 1, height - 1])
    high = np.clip(np.ceil(boxes[:, 2:]).astype(int), low + 1, [width, height])
    masks = []
    for values, (x1, y1), (x2, y2) in zip(sums, low.tolist(), high.tolist(), strict=True):
        # From the centre of a pixel in the window to the grid of the prototypes, whose cells have centres, too.
        to_grid = np.array(
            [
                [scale[0], 0, (x1 + 0.5) * scale[0] + offset[0] - 0.5],
                [0, scale[1], (y1 + 0.5) * scale[1] + offset[1] - 0.5],
            ]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        drawn = cv2.warpAffine(values, to_grid, (x2 - x1, y2 - y1), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        masks.append(Mask.of_bits(drawn > 0, x1, y1))
    return masks


def masks_row(video_id: str, track_id: int, masks: Iterable[tuple[int, Mask]]) -> dict[str, Any] | None:
    """Return a row of the table MASKS for a track's masks, as (frame, mask); None if there is none."""
    found = list(masks)
    if not found:
        return None
    return {
        "video_id": video_id,
        "track_id": track_id,
        "frames": [frame for frame, _ in found],
        "windows": [mask.window for _, mask in found],
        "runs": [mask.runs for _, mask in found],
    }


def masks_table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Return rows of `masks_row` as a table."""
    return pa.Table.from_pylist(list(rows), schema=MASKS)

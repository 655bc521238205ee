"""Small worlds for the tests of this folder: drawn videos, a detector that finds red squares, tables of tracks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from vtcav_ray.tables import TRACKS, VIDEOS
from vtcav_ray.tracks.detect import Detections


class RedSquares:
    """A stand-in for a detector: it finds red objects."""

    names = {0: "square", 1: "other"}  # noqa: RUF012
    device = "cpu"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def letterbox(self, frame: np.ndarray) -> np.ndarray:
        return frame

    def detect(self, inputs: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        assert len({i.shape for i in inputs}) == 1
        self.batches.append(len(inputs))
        return [self._objects(image) for image in inputs]

    def _objects(self, image: np.ndarray) -> Detections:
        red = ((image[..., 0] > 180) & (image[..., 1] < 90)).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(red)
        boxes = [(x, y, x + w, y + h) for x, y, w, h, area in stats[1:count] if area > 20]
        n = len(boxes)
        return Detections(np.array(boxes, np.float32).reshape(n, 4), np.full(n, 0.9, np.float32), np.zeros(n, np.int64))


def track_row(video_id: str, track_id: int = 1, label: str = "cup", **changes: Any) -> dict[str, Any]:
    """Make a row of TRACKS: 40 frames, a 20-pixel box moving right 2 pixels per frame in a 200x100 video at 25 fps."""
    n = changes.pop("n", 40)
    step = changes.pop("step", (2.0, 0.0))
    start = changes.pop("start", (20.0, 40.0))
    corner = np.array(start) + np.arange(n)[:, None] * np.array(step)
    row = {
        "video_id": video_id,
        "track_id": track_id,
        "label": label,
        "frames": np.arange(n),
        "boxes": list(np.concatenate((corner, corner + 20), axis=1)),
        "confidence": np.full(n, 0.8),
        "fps": 25.0,
        "height": 100,
        "width": 200,
        "num_frames": n,
        "camera": [(0.0, 0.0)] * n,
        "sharpness": np.full(n, 100.0),
        "shot": np.zeros(n, int),
    }
    return {**row, **changes}


def tracks_table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=TRACKS)


def videos_table(labels: dict[str, str | None]) -> pa.Table:
    rows = [{"video_id": v, "uri": f"/videos/{v}", "label": label} for v, label in sorted(labels.items())]
    return pa.Table.from_pylist(rows, schema=VIDEOS)

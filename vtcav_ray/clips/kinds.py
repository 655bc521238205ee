"""The kinds of concept clip, each made of one object's boxes and the frames under them.

Crops are square, uint8 [T, S, S, 3]; full frames keep their shape, with a short side of at most S.

- `spatial`: the object's crop from ONE frame, T times. Nothing moves.
- `spatiotemporal` (the paper's): a canvas as large as the object's largest box in the span; each crop in its middle,
  black around it.
- `tracked`: a square window of constant size that follows the object, filled from the frame; where it would leave the
  frame it stops at the edge. Nothing is padded.
- `context`: the full frame; what the object never covers can be blurred.
- `full`: the full frame of a class example.

Controls, each of a spatiotemporal clip: `frozen` (one of its frames, on the same canvas, T times), `shuffled`,
`reversed`, `padding` (the box's mask on the canvas, moving as the box does, filled with the clip's mean colour).

Each frame of a clip is made from one source frame, so frames can be given one at a time, in any order, and dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

CROPS = ("spatial", "spatiotemporal", "tracked")
CONTROLS = ("frozen", "shuffled", "reversed", "padding")
FULL = ("context", "full")
STILL_KINDS = ("spatial", "frozen")
_CONTEXT_MARGIN = 0.05  # of the box's side, kept sharp around it


class ClipBuilder:
    """Builds one clip from source frames.

    Args:
        kind: see the module's first lines.
        boxes: float [T, 4] xyxy, source pixels, the object in each of the span's frames; None for full frames.
        length: T.
        frame_size: (height, width) of the source frames.
        size: S, pixels.
        pick: which of the T frames a still kind shows.
        blur: `context` only: sigma of the blur outside the object's path, as a fraction of S; 0: none.
        seed: of the shuffle.

    Attributes:
        needs: positions in the span whose frames must be `put`.
        order: int [T], the span's position that each frame of the clip is made from.
    """

    def __init__(
        self,
        kind: str,
        boxes: np.ndarray | None,
        length: int,
        frame_size: tuple[int, int],
        size: int,
        *,
        pick: int = 0,
        blur: float = 0.0,
        seed: int = 0,
    ) -> None:
        if kind not in (*CROPS, *CONTROLS, *FULL):
            raise ValueError(f"no kind {kind!r}")
        if boxes is None and kind not in FULL:
            raise ValueError(f"a {kind} clip needs boxes")
        self.kind, self._size, self._frame_size = kind, size, frame_size
        self.order = np.full(length, pick) if kind in STILL_KINDS else np.arange(length)
        if kind == "reversed":
            self.order = self.order[::-1].copy()
        elif kind == "shuffled":
            self.order = _shuffle(length, seed)
        self.needs = sorted({int(i) for i in self.order})
        self._pieces: dict[int, np.ndarray] = {}
        self._colours: dict[int, np.ndarray] = {}
        self._windows = None if boxes is None else _whole_pixels(boxes, frame_size)
        self._blur, self._mask = 0.0, np.empty(0, np.float32)
        if self._windows is None:
            return
        if kind == "spatial":
            x1, y1, x2, y2 = self._windows[pick]
            self._canvas = (int(y2 - y1), int(x2 - x1))
        elif kind == "tracked":
            self._windows = _square_windows(np.asarray(boxes, np.float64), frame_size)
            self._canvas = (int(self._windows[0, 3] - self._windows[0, 1]),) * 2
        elif kind == "context":
            self._blur = blur * size
            if self._blur:
                self._mask = self._path_mask()
        else:
            self._canvas = (
                int((self._windows[:, 3] - self._windows[:, 1]).max()),
                int((self._windows[:, 2] - self._windows[:, 0]).max()),
            )

    def put(self, position: int, frame: np.ndarray) -> None:
        """Give the source frame of a position of the span: uint8 [H, W, 3]."""
        if frame.shape[:2] != self._frame_size:
            raise ValueError(f"frame of {frame.shape[:2]}, and the clip is of {self._frame_size}")
        if self.kind in FULL:
            self._pieces[position] = self._full(frame)
            return
        assert self._windows is not None
        x1, y1, x2, y2 = self._windows[position]
        crop = frame[y1:y2, x1:x2]
        if self.kind == "padding":
            self._colours[position] = crop.reshape(-1, 3).mean(0)
            crop = np.ones_like(crop)  # the mask; its colour is known when all frames are
        self._pieces[position] = self._on_canvas(crop)

    @property
    def complete(self) -> bool:
        """Every frame that is needed was put."""
        return len(self._pieces) == len(self.needs)

    def finish(self) -> np.ndarray:
        """The clip, once every frame that it needs was put: uint8 [T, S, S, 3] or [T, h, w, 3]."""
        if missing := [p for p in self.needs if p not in self._pieces]:
            raise ValueError(f"no frame was put for positions {missing}")
        clip = np.stack([self._pieces[int(i)] for i in self.order])
        if self.kind == "padding":
            colour = np.mean([self._colours[p] for p in self.needs], axis=0).round()
            clip = (clip * np.maximum(colour, 1)).astype(np.uint8)  # at least 1, so that black objects leave a mask
        return clip

    def _on_canvas(self, crop: np.ndarray) -> np.ndarray:
        """Put a crop into the middle of the canvas, and the canvas into the middle of the square."""
        size = self._size
        canvas_h, canvas_w = self._canvas
        ratio = size / max(canvas_h, canvas_w)
        height = max(round(crop.shape[0] * ratio), 1)
        width = max(round(crop.shape[1] * ratio), 1)
        height, width = min(height, size), min(width, size)
        nearest = self.kind == "padding"
        interpolation = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
        out = np.zeros((size, size, 3), np.uint8)
        top, left = (size - height) // 2, (size - width) // 2
        out[top : top + height, left : left + width] = cv2.resize(crop, (width, height), interpolation=interpolation)
        return out

    def _full(self, frame: np.ndarray) -> np.ndarray:
        height, width = self._full_size()
        if (height, width) != frame.shape[:2]:
            frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        if not self._blur:
            return np.ascontiguousarray(frame)
        blurred = cv2.GaussianBlur(frame, (0, 0), self._blur)
        mask = self._mask[..., None]
        return (frame * mask + blurred * (1 - mask)).round().astype(np.uint8)

    def _full_size(self) -> tuple[int, int]:
        height, width = self._frame_size
        ratio = min(self._size / min(height, width), 1.0)
        return max(round(height * ratio), 1), max(round(width * ratio), 1)

    def _path_mask(self) -> np.ndarray:
        """float32 [h, w] in [0, 1]: 1 where the object is at any time of the span."""
        assert self._windows is not None
        height, width = self._full_size()
        mask = np.zeros((height, width), np.float32)
        scale_y, scale_x = height / self._frame_size[0], width / self._frame_size[1]
        for x1, y1, x2, y2 in self._windows:
            margin = _CONTEXT_MARGIN * max(x2 - x1, y2 - y1)
            top, left = max(int((y1 - margin) * scale_y), 0), max(int((x1 - margin) * scale_x), 0)
            mask[top : int(np.ceil((y2 + margin) * scale_y)), left : int(np.ceil((x2 + margin) * scale_x))] = 1
        return np.maximum(mask, cv2.GaussianBlur(mask, (0, 0), 1.5))  # soft on the outside only


def build_clip(
    kind: str,
    frames: Sequence[np.ndarray] | np.ndarray,
    boxes: np.ndarray | None,
    size: int,
    *,
    pick: int = 0,
    blur: float = 0.0,
    seed: int = 0,
) -> np.ndarray:
    """A clip of a kind from all T frames of its span: uint8 [T, S, S, 3] for crops and controls, else [T, h, w, 3].

    Args:
        frames: T frames uint8 [H, W, 3].
        boxes: see `ClipBuilder`, as the rest.
    """
    height, width = frames[0].shape[:2]
    builder = ClipBuilder(kind, boxes, len(frames), (height, width), size, pick=pick, blur=blur, seed=seed)
    for position in builder.needs:
        builder.put(position, frames[position])
    return builder.finish()


def _whole_pixels(boxes: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
    """int [T, 4]: the smallest whole-pixel boxes around `boxes`, inside the frame, at least one pixel a side."""
    height, width = frame_size
    low = np.floor(np.asarray(boxes, np.float64)[:, :2]).astype(int)
    high = np.ceil(np.asarray(boxes, np.float64)[:, 2:]).astype(int)
    low = np.clip(low, 0, [width - 1, height - 1])
    high = np.clip(high, low + 1, [width, height])
    return np.concatenate((low, high), axis=1)


def _square_windows(boxes: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
    """int [T, 4]: squares of one size around each box's centre, pushed back into the frame."""
    height, width = frame_size
    side = int(np.ceil((boxes[:, 2:] - boxes[:, :2]).max()))
    side = int(np.clip(side, 1, min(height, width)))
    low = np.round((boxes[:, :2] + boxes[:, 2:]) / 2 - side / 2).astype(int)
    low = np.clip(low, 0, [width - side, height - side])
    return np.concatenate((low, low + side), axis=1)


def _shuffle(length: int, seed: int) -> np.ndarray:
    """A permutation that keeps the order of time neither forwards nor backwards (where the length allows it)."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(length)
    for _ in range(20):
        steps = np.diff(order)
        # |mean sign| near 0: as many steps back as forth
        if length < 4 or abs(np.sign(steps).mean()) <= 0.34:
            break
        order = rng.permutation(length)
    return order

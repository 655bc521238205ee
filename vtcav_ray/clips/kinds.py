"""The kinds of concept clip, each made of one object's boxes and the frames under them.

Crops are square, uint8 [T, S, S, 3]; full frames keep their shape, with a short side of at most S.

- `spatial`: the object's crop from ONE frame, T times. Nothing moves.
- `spatiotemporal` (the paper's): a canvas as large as the object's largest box in the span; each crop in its middle,
  black around it.
- `tracked`: a square window of constant size that follows the object, filled from the frame; it stops at the frame's
  edge, so nothing is padded.
- `context`: the full frame; places that the object never covers can be blurred.
- `full`: the full frame of a class example.
- `given`: the full frame of a person's own clip; `still`: one of them, or a person's own image, T times.

Controls, each of a spatiotemporal clip: `frozen` (one of its frames, on the same canvas, T times), `shuffled`,
`reversed`, `padding` (the box's mask on the canvas, moving as the box does, filled with the clip's mean colour).
Controls of own clips, in full frame: `given_frozen`, `given_shuffled`, `given_reversed`.

With `clips.mask`, the source frames show the object alone (`vtcav_ray.clips.masks`), and canvases are grey, too. The
control `padding` is then the object's silhouette instead of its box.

Each frame of a clip is made from one source frame, so frames can be given one at a time, in any order, and dropped.
OpenCV is imported only where pixels are changed, so the planner can ask the kinds for their needs without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from vtcav_ray.clips.geometry import shuffled, square_windows, whole_pixels
from vtcav_ray.config import ClipsConfig
from vtcav_ray.config.clips import GIVEN, STILL
from vtcav_ray.registry import CONCEPT_KINDS, MOTION_CONTROLS

_CONTEXT_MARGIN = 0.05  # of the box's side, kept sharp around it
CONTROLLED = "spatiotemporal"  # motion controls are made only from these clips
Group = Literal["static", "dynamic", "context", "control"]
WindowsAndCanvas = tuple[np.ndarray, tuple[int, int]]


class ClipBuilder:
    """A builder of one clip from source frames. Each kind is a subclass; this class crops every frame of the span.

    A subclass overrides the step in which it differs: `frame_order`, `windows_and_canvas`, `piece` or `assemble`.

    Args:
        boxes: float [T, 4] xyxy, source pixels, the object in each of the span's frames; None for full frames.
        length: T.
        frame_size: (height, width) of the source frames.
        size: S, pixels.
        pick: the frame, of T, that a still kind shows.
        blur: `context` only: sigma of the blur outside the object's path, as a fraction of S; 0: none.
        seed: of the shuffle.

    Attributes:
        group: the purpose of the kind; the report sorts kinds by it. Kinds that are `dynamic` or `context` are compared
            with the `static` ones and the `control`s of the same name.
        keeps_movement: of a motion control, the clip moves as its original does, and lacks something else. A difference
            from it is then not the effect of the movement.
        full_frame: the clip has full frames: it needs no boxes, and its frames keep their shape.
        needs: positions in the span whose frames must be `put`.
        order: int [T], the span's position that each frame of the clip is made from.
        background: what surrounds a crop on its canvas, in [0, 255]. Set it before frames are put.
        shown: bool [H, W], the object's pixels in the frame that is being put; None: everything is shown.
    """

    group: ClassVar[Group] = "dynamic"
    keeps_movement: ClassVar[bool] = False
    full_frame: ClassVar[bool] = False
    background: int = 0
    shown: np.ndarray | None = None

    def __init__(
        self,
        boxes: np.ndarray | None,
        length: int,
        frame_size: tuple[int, int],
        size: int,
        *,
        pick: int = 0,
        blur: float = 0.0,
        seed: int = 0,
    ) -> None:
        if boxes is None and not self.full_frame:
            raise ValueError(f"a {type(self).__name__} clip needs boxes")
        self.size, self.frame_size, self.pick, self.blur, self.seed = size, frame_size, pick, blur, seed
        self.order = self.frame_order(length)
        self.needs = sorted({int(i) for i in self.order})
        self._pieces: dict[int, Any] = {}
        self.windows, self.canvas = np.empty((0, 4), int), frame_size
        if boxes is not None:
            self.windows, self.canvas = self.windows_and_canvas(np.asarray(boxes, np.float64))

    @classmethod
    def negatives_need_tracks(cls, config: ClipsConfig) -> bool:
        """Return whether the matched random clips are cut around random objects, or from anywhere in a video.

        A concept is compared with random clips of the same kind: a still one with stills, a padded one with padded
        ones. If an object decides what a clip shows, its matched clips need an object, too.
        """
        return not cls.full_frame

    def frame_order(self, length: int) -> np.ndarray:
        """Return int [T]: the position in the span that each frame of the clip is made from."""
        return np.arange(length)

    def windows_and_canvas(self, boxes: np.ndarray) -> WindowsAndCanvas:
        """Return the windows to cut, int [T, 4] xyxy, and the (height, width) of the canvas that holds each crop."""
        windows = whole_pixels(boxes, self.frame_size)
        return windows, (int((windows[:, 3] - windows[:, 1]).max()), int((windows[:, 2] - windows[:, 0]).max()))

    def piece(self, position: int, frame: np.ndarray) -> Any:
        """Return the part of a source frame to keep: a frame of the clip, unless `assemble` needs something else."""
        return self.on_canvas(self.crop(position, frame))

    def assemble(self, pieces: Mapping[int, Any]) -> np.ndarray:
        """Return the clip, from the piece of each position in `needs`."""
        return np.stack([pieces[int(i)] for i in self.order])

    def put(self, position: int, frame: np.ndarray, shown: np.ndarray | None = None) -> None:
        """Pass in the source frame of a position of the span.

        Args:
            frame: uint8 [H, W, 3]; with `shown`, already painted over outside the object.
            shown: bool [H, W], the object's pixels.
        """
        if frame.shape[:2] != self.frame_size:
            raise ValueError(f"frame of {frame.shape[:2]}, and the clip is of {self.frame_size}")
        self.shown = shown
        self._pieces[position] = self.piece(position, frame)

    @property
    def complete(self) -> bool:
        """Whether every needed frame was put."""
        return len(self._pieces) == len(self.needs)

    def finish(self) -> np.ndarray:
        """Return the clip after every needed frame was put: uint8 [T, S, S, 3] or [T, h, w, 3]."""
        if missing := [p for p in self.needs if p not in self._pieces]:
            raise ValueError(f"no frame was put for positions {missing}")
        return self.assemble(self._pieces)

    def crop(self, position: int, frame: np.ndarray) -> np.ndarray:
        """Cut the window of a position out of its frame."""
        x1, y1, x2, y2 = self.windows[position]
        return frame[y1:y2, x1:x2]

    def on_canvas(self, crop: np.ndarray, *, nearest: bool = False, background: int | None = None) -> np.ndarray:
        """Put a crop into the middle of the canvas, and the canvas into the middle of the square.

        Args:
            nearest: take the nearest pixel, without interpolation.
            background: around the crop; None: the builder's own.
        """
        import cv2

        size = self.size
        canvas_h, canvas_w = self.canvas
        ratio = size / max(canvas_h, canvas_w)
        height = max(round(crop.shape[0] * ratio), 1)
        width = max(round(crop.shape[1] * ratio), 1)
        height, width = min(height, size), min(width, size)
        interpolation = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
        out = np.full((size, size, 3), self.background if background is None else background, np.uint8)
        top, left = (size - height) // 2, (size - width) // 2
        out[top : top + height, left : left + width] = cv2.resize(crop, (width, height), interpolation=interpolation)
        return out


@CONCEPT_KINDS.register("spatial")
class Spatial(ClipBuilder):
    """The object's crop from one frame, T times."""

    group = "static"

    def frame_order(self, length: int) -> np.ndarray:
        return np.full(length, self.pick)

    def windows_and_canvas(self, boxes: np.ndarray) -> WindowsAndCanvas:
        windows = whole_pixels(boxes, self.frame_size)
        x1, y1, x2, y2 = windows[self.pick]
        return windows, (int(y2 - y1), int(x2 - x1))


@CONCEPT_KINDS.register(CONTROLLED)
class Spatiotemporal(ClipBuilder):
    """Each frame's crop in the middle of a canvas as large as the object's largest box, black around it."""


@CONCEPT_KINDS.register("tracked")
class TrackedClip(ClipBuilder):
    """A square window of constant size that follows the object."""

    def windows_and_canvas(self, boxes: np.ndarray) -> WindowsAndCanvas:
        windows = square_windows(boxes, self.frame_size)
        return windows, (int(windows[0, 3] - windows[0, 1]),) * 2


class Full(ClipBuilder):
    """The full frame of a class example. No concept has this kind."""

    group: ClassVar[Group] = "context"
    full_frame = True

    def windows_and_canvas(self, boxes: np.ndarray) -> WindowsAndCanvas:
        return whole_pixels(boxes, self.frame_size), self.shape

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the clip's frames."""
        height, width = self.frame_size
        ratio = min(self.size / min(height, width), 1.0)
        return max(round(height * ratio), 1), max(round(width * ratio), 1)

    def piece(self, position: int, frame: np.ndarray) -> np.ndarray:
        import cv2

        height, width = self.shape
        if (height, width) != frame.shape[:2]:
            frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(frame)


@CONCEPT_KINDS.register("context")
class ContextClip(Full):
    """The full frame, with an optional blur where the object never is."""

    @classmethod
    def negatives_need_tracks(cls, config: ClipsConfig) -> bool:
        return config.context_blur > 0

    def piece(self, position: int, frame: np.ndarray) -> np.ndarray:
        import cv2

        frame = super().piece(position, frame)
        if not self.blur or not len(self.windows):
            return frame
        blurred = cv2.GaussianBlur(frame, (0, 0), self.blur * self.size)
        mask = self._path_mask[..., None]
        return (frame * mask + blurred * (1 - mask)).round().astype(np.uint8)

    @cached_property
    def _path_mask(self) -> np.ndarray:
        """Return float32 [h, w] in [0, 1]: 1 where the object is at any time of the span."""
        import cv2

        height, width = self.shape
        mask = np.zeros((height, width), np.float32)
        scale_y, scale_x = height / self.frame_size[0], width / self.frame_size[1]
        for x1, y1, x2, y2 in self.windows:
            margin = _CONTEXT_MARGIN * max(x2 - x1, y2 - y1)
            top, left = max(int((y1 - margin) * scale_y), 0), max(int((x1 - margin) * scale_x), 0)
            mask[top : int(np.ceil((y2 + margin) * scale_y)), left : int(np.ceil((x2 + margin) * scale_x))] = 1
        return np.maximum(mask, cv2.GaussianBlur(mask, (0, 0), 1.5))  # soft on the outside only


@MOTION_CONTROLS.register("frozen")
class Frozen(Spatiotemporal):
    """One of the clip's frames, T times."""

    group = "control"

    def frame_order(self, length: int) -> np.ndarray:
        return np.full(length, self.pick)


@MOTION_CONTROLS.register("shuffled")
class Shuffled(Spatiotemporal):
    """The clip's frames in an order that goes neither forwards nor backwards."""

    group = "control"

    def frame_order(self, length: int) -> np.ndarray:
        return shuffled(length, self.seed)


@MOTION_CONTROLS.register("reversed")
class Reversed(Spatiotemporal):
    """The clip backwards."""

    group = "control"

    def frame_order(self, length: int) -> np.ndarray:
        return np.arange(length)[::-1].copy()


@MOTION_CONTROLS.register("padding")
class Padding(Spatiotemporal):
    """The box's mask on the canvas, moving as the box does, filled with the clip's mean colour.

    Where objects are shown alone, it is the object's own mask, filled with the object's mean colour.
    """

    group = "control"
    keeps_movement = True

    def piece(self, position: int, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        crop = self.crop(position, frame)
        if self.shown is None:
            inside, colours = np.ones_like(crop), crop.reshape(-1, 3)
        else:
            shown = self.crop(position, self.shown)
            inside, colours = np.repeat(shown[..., None], 3, 2).astype(np.uint8), crop[shown]
        colour = colours.mean(0) if len(colours) else np.full(3, np.nan)  # NaN: the object is outside its box
        return self.on_canvas(inside, nearest=True, background=0), colour

    def assemble(self, pieces: Mapping[int, Any]) -> np.ndarray:
        masks = np.stack([pieces[int(i)][0] for i in self.order])
        colours = np.stack([pieces[p][1] for p in self.needs])
        colours = colours[np.isfinite(colours).all(1)]
        colour = colours.mean(0).round() if len(colours) else np.full(3, 0.0)
        # One step away from the background at least, so that an object of its colour leaves a mask.
        colour = np.where((colour == self.background).all(), colour + 1, np.maximum(colour, 1))
        return np.where(masks > 0, colour, self.background).astype(np.uint8)


@CONCEPT_KINDS.register(GIVEN)
class GivenClip(Full):
    """The full frame of a person's own clip."""


@CONCEPT_KINDS.register(STILL)
class StillClip(Full):
    """One full frame, T times."""

    group: ClassVar[Group] = "static"

    def frame_order(self, length: int) -> np.ndarray:
        return np.full(length, self.pick)


class GivenFrozen(StillClip):
    """One of an own clip's frames, T times."""

    group: ClassVar[Group] = "control"


class GivenShuffled(Full):
    """An own clip's frames in an order that goes neither forwards nor backwards."""

    group: ClassVar[Group] = "control"

    def frame_order(self, length: int) -> np.ndarray:
        return shuffled(length, self.seed)


class GivenReversed(Full):
    """An own clip backwards."""

    group: ClassVar[Group] = "control"

    def frame_order(self, length: int) -> np.ndarray:
        return np.arange(length)[::-1].copy()


# Not in the registry: a config names them by what they do to the clip, and its concept decides which one is meant.
_GIVEN_CONTROLS: dict[str, type[ClipBuilder]] = {
    "given_frozen": GivenFrozen,
    "given_shuffled": GivenShuffled,
    "given_reversed": GivenReversed,
}


def control_of_given(control: str) -> str:
    """Return the kind of a motion control of own clips. Own kinds keep full frames apart from crops of tracks."""
    return f"{GIVEN}_{control}"


def builder_of(kind: str) -> type[ClipBuilder]:
    """Return the class that builds clips of a concept kind, a motion control, or `full`.

    Raises:
        ValueError: there is no such kind.
    """
    if kind == "full":
        return Full
    if kind in _GIVEN_CONTROLS:
        return _GIVEN_CONTROLS[kind]
    registry = MOTION_CONTROLS if kind in MOTION_CONTROLS else CONCEPT_KINDS
    found: type[ClipBuilder] = registry[kind]
    return found

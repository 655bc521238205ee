"""`tracks.frame_stride: auto`: detect in some frames of a video, and interpolate the boxes in the frames between.

Key frames are detected: every fourth frame while something moves, every 16th while nothing does, and the frames on both
sides of a cut. Between two key frames, boxes of one class that overlap are one object, whose box is interpolated. If a
box has no partner, something begins, ends, or moves too fast, and the frame in the middle is detected, too, and so on.
The tracker gets every frame, so its settings mean what they mean without gaps.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from vtcav_ray.tracks.decoder import Frame
    from vtcav_ray.tracks.detect import Detections

MOVING_GAP = 4  # frames from one key frame to the next
STILL_GAP = 16
_CHANGED_GREY = 16  # levels: a pixel of the small picture that differs by more has changed
_CHANGED_SHARE = 0.002  # of the pixels: with more, something has moved since the key frame
_SAME_IOU = 0.3  # of an object's boxes in two key frames


class FramePlan(Protocol):
    """Which frames of one video are detected, and the detections of all its frames, in order."""

    def add(self, frame: Frame) -> list[Frame]:
        """Take the next frame. Return the frames to detect in."""
        ...

    def end(self) -> list[Frame]:
        """Note that no frame follows. Return the frames to detect in."""
        ...

    def take(self, frame: Frame, found: Detections) -> tuple[list[tuple[Frame, Detections]], list[Frame]]:
        """Take the detections of a frame. Return the next frames with their detections, and frames to detect in."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory of the frames that wait and are not to be detected, in bytes."""
        ...


class EveryFrame:
    """Detect in every frame."""

    nbytes = 0

    def add(self, frame: Frame) -> list[Frame]:
        return [frame]

    def end(self) -> list[Frame]:
        return []

    def take(self, frame: Frame, found: Detections) -> tuple[list[tuple[Frame, Detections]], list[Frame]]:
        return [(frame, found)], []


@dataclass
class _Slot:
    """A frame, whether its detections were asked for, and these, or the interpolated ones."""

    frame: Frame
    asked: bool = False
    found: Detections | None = None
    passed_on: bool = False


class Keyframes:
    """Detect in key frames and where objects begin or end.

    Args:
        sure: objects of this confidence need a partner in the next key frame; others may vanish.
    """

    def __init__(self, sure: float) -> None:
        self._sure = sure
        self._slots: list[_Slot] = []  # from the last frame that was passed on
        self._key = 0  # place of the latest key frame

    def add(self, frame: Frame) -> list[Frame]:
        begins = frame.step is None or frame.step.cut
        gap = len(self._slots) - self._key
        moved = begins or self._moved(frame)
        wanted = []
        self._slots.append(_Slot(frame))
        last = len(self._slots) - 1
        if last and (begins or (moved and gap > MOVING_GAP)):
            wanted.append(last - 1)  # nothing is interpolated across a cut, nor from a still scene into a moving one
        if begins or gap >= (MOVING_GAP if moved else STILL_GAP):
            wanted.append(last)
            self._key = last
        return self._ask(wanted)

    def end(self) -> list[Frame]:
        return self._ask([len(self._slots) - 1]) if self._slots else []

    def take(self, frame: Frame, found: Detections) -> tuple[list[tuple[Frame, Detections]], list[Frame]]:
        next(slot for slot in self._slots if slot.frame is frame).found = found
        detected = [i for i, slot in enumerate(self._slots) if slot.found is not None]
        wanted = []
        for first, last in itertools.pairwise(detected):
            between = self._slots[first + 1 : last]
            if not between or any(slot.asked for slot in between):
                continue
            filled = interpolated(self._slots[first].found, self._slots[last].found, len(between), self._sure)
            if filled is None:
                wanted.append((first + last) // 2)
                continue
            for slot, boxes in zip(between, filled, strict=True):
                slot.found = boxes
        asked = self._ask(wanted)  # before places change
        return self._ready(), asked

    @property
    def nbytes(self) -> int:
        return sum(slot.frame.nbytes for slot in self._slots if not slot.asked)

    def _ask(self, places: Sequence[int]) -> list[Frame]:
        new = [self._slots[i] for i in places if not self._slots[i].asked and self._slots[i].found is None]
        for slot in new:
            slot.asked = True
        return [slot.frame for slot in new]

    def _ready(self) -> list[tuple[Frame, Detections]]:
        """Return the frames up to the first without detections, and forget all of them but the last."""
        ready = list(itertools.takewhile(lambda slot: slot.found is not None, self._slots))
        passed = [(slot.frame, slot.found) for slot in ready if not slot.passed_on and slot.found is not None]
        if ready:
            ready[-1].passed_on = True
            self._slots = self._slots[len(ready) - 1 :]
            self._key = max(0, self._key - len(ready) + 1)
        return passed

    def _moved(self, frame: Frame) -> bool:
        """Return whether the small picture differs from the latest key frame's."""
        now, before = frame.small, self._slots[self._key].frame.small
        if now is None or before is None or now.shape != before.shape:
            return True
        changed = np.abs(now.astype(np.int16) - before) > _CHANGED_GREY
        return bool(changed.mean() > _CHANGED_SHARE)


def interpolated(
    before: Detections | None, after: Detections | None, count: int, sure: float
) -> list[Detections] | None:
    """Return detections for `count` frames between two; None if an object of this confidence is in one of them only.

    Boxes of one class are one object if their intersection over union is at least 0.3, the best pairs first.
    """
    assert before is not None
    assert after is not None
    first, last = _partners(before, after)
    if _lone(before, first, sure) or _lone(after, last, sure):
        return None
    shares = np.arange(1, count + 1, dtype=np.float32) / (count + 1)
    return [_between(before, after, first, last, share) for share in shares]


def _between(
    before: Detections, after: Detections, first: Sequence[int], last: Sequence[int], share: np.float32
) -> Detections:
    from vtcav_ray.tracks.detect import Detections as Found

    boxes = before.boxes[first] * (1 - share) + after.boxes[last] * share
    confidence = before.confidence[first] * (1 - share) + after.confidence[last] * share
    order = np.argsort(-confidence, kind="stable")
    masks = None if before.masks is None else (None,) * len(order)
    return Found(boxes[order], confidence[order], before.classes[first][order], masks)


def _partners(before: Detections, after: Detections) -> tuple[list[int], list[int]]:
    """Return the places of the objects that are in both frames."""
    overlap = box_iou(before.boxes, after.boxes) * (before.classes[:, None] == after.classes[None])
    first: list[int] = []
    last: list[int] = []
    for place in np.argsort(-overlap, axis=None, kind="stable").tolist():
        i, j = divmod(place, overlap.shape[1])
        if overlap[i, j] < _SAME_IOU:
            break
        if i not in first and j not in last:
            first.append(i)
            last.append(j)
    return first, last


def _lone(found: Detections, partners: Sequence[int], sure: float) -> bool:
    alone = np.ones(len(found.boxes), bool)
    alone[list(partners)] = False
    return bool((found.confidence[alone] >= sure).any())


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return intersection over union of boxes [n, 4] and [m, 4]: [n, m]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [np.clip(x[:, 2:] - x[:, :2], 0, None).prod(1) for x in (a, b)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9))

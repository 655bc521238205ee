"""Class rules: what a video's class fixes about its scene. No other part of the world depends on classes.

A rule casts video `index` of world `seed`: it returns the label, the main object's kind and motion, and the split.
Scenes are then drawn from that `Role` alone. So another world (classes by object kind, or by object and motion) needs
another rule and no change to the drawing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

KINDS = ("cup", "ball", "box", "hand")

# Unit vectors in image coordinates: x to the right, y DOWN.
DIRECTIONS: dict[str, tuple[float, float]] = {
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
}
MOTION_OF_LABEL = {"lift": "up", "put_down": "down", "push_left": "left", "push_right": "right"}
REVERSE_LABEL = {"lift": "put_down", "put_down": "lift", "push_left": "push_right", "push_right": "push_left"}
SPLITS = ("train", "train", "val", "test")

_CASTING_STREAM = 1  # separates the random numbers for casting from those for scenes


@dataclass(frozen=True)
class Role:
    """The properties of one video that the class rule fixes."""

    label: str
    kind: str  # of the main object, one of KINDS
    motion: str  # of the main object, one of DIRECTIONS
    split: str  # train, val or test


class ClassRule(Protocol):
    """A definition of classes. `labels` are all its classes; `role` casts one video."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    def role(self, seed: int, index: int) -> Role: ...


@dataclass(frozen=True)
class MotionRule:
    """Classes by motion only: the label is the direction of the main object, and its kind is independent of it.

    Each 16 consecutive videos contain every (label, kind) pair once, in shuffled order. Each label has 2 train, 1 val
    and 1 test video among them. So classes are balanced, and crossed with kinds, for any number of videos.
    """

    labels: tuple[str, ...] = tuple(MOTION_OF_LABEL)

    def role(self, seed: int, index: int) -> Role:
        """Return the role of video `index` (from 0) in world `seed`. It does not depend on the number of videos."""
        block, place = divmod(index, len(self.labels) * len(KINDS))
        rng = np.random.default_rng(np.random.SeedSequence([seed, block, _CASTING_STREAM]))
        order = rng.permutation(len(self.labels) * len(KINDS))
        # One row per label: the split of the video with each kind.
        splits = np.stack([rng.permutation(len(SPLITS)) for _ in self.labels])
        label_index, kind_index = divmod(int(order[place]), len(KINDS))
        label = self.labels[label_index]
        return Role(label, KINDS[kind_index], MOTION_OF_LABEL[label], SPLITS[splits[label_index, kind_index]])


MOTION_ONLY = MotionRule()

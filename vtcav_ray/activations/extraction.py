"""The results of an extraction, joined from those of the model calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from vtcav_ray.errors import InputError


@dataclass(frozen=True)
class NonFinite:
    """NaN or infinity in the results of one clip; `clip` is its index in the call."""

    clip: int
    layer: str
    what: Literal["activation", "gradient", "logits"]
    numbers: str = ""  # the type in which it is stored, if the value is finite but too large for it

    @property
    def message(self) -> str:
        if self.numbers:
            return (
                f"a number in the {self.what} at layer `{self.layer}` is too large for {self.numbers}. Set "
                "`activations.dtype: float32`"
            )
        return f"NaN or infinity in the {self.what} at layer `{self.layer}`"


@dataclass(frozen=True)
class Extraction:
    """Results of one call for B clips, over L layers and K classes.

    Attributes:
        activations: layer -> float32 `[B, d]`, the mean over the views of a clip.
        gradients: layer -> float32 `[G, d]`, one row per (clip, class), the mean over the views.
        gradient_clips: int `[G]`, index of the clip of each gradient; ascending.
        gradient_classes: int `[G]`, index of the class.
        gradient_values: float32 `[G]`, the target's value, the mean over the views.
        logits: float32 `[B, K]`, the mean over the views.
        gains: layer -> float64 `[B]`, the mean over the views of a clip; see `Projection.gains`.
        predicted: int `[B]`, the class of the largest logit.
        views: number of views averaged per clip.
        non_finite: unusable clips, and where the fault shows; their rows above hold the computed values.
        unreadable: clip -> why it could not be read; its rows above are zeros, and it has no gradients.
    """

    activations: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    gradient_clips: np.ndarray
    gradient_classes: np.ndarray
    gradient_values: np.ndarray
    logits: np.ndarray
    gains: dict[str, np.ndarray]
    predicted: np.ndarray
    views: int
    non_finite: tuple[NonFinite, ...]
    unreadable: dict[int, InputError]

    @property
    def gradient_margins(self) -> np.ndarray:
        """float32 `[G]`: the class's logit minus the largest of the other classes; NaN if there is no other class."""
        if self.logits.shape[1] < 2:
            return np.full(len(self.gradient_clips), np.nan, np.float32)
        rows = np.arange(len(self.gradient_clips))
        others = self.logits[self.gradient_clips]
        own = others[rows, self.gradient_classes]
        others[rows, self.gradient_classes] = -np.inf
        return np.asarray(own - others.max(1), np.float32)

    @property
    def bad_clips(self) -> frozenset[int]:
        return frozenset(item.clip for item in self.non_finite) | frozenset(self.unreadable)

    def that_fits(self, dtype: np.dtype[Any]) -> Extraction:
        """Return a copy in which clips with activations too large for `dtype`, the storage type, are unusable."""
        largest = np.finfo(dtype).max
        too_large = tuple(
            NonFinite(int(clip), layer, "activation", dtype.name)
            for layer, vectors in self.activations.items()
            for clip in np.flatnonzero((np.abs(vectors) > largest).any(1))
            if int(clip) not in self.bad_clips
        )
        return replace(self, non_finite=self.non_finite + too_large)


@dataclass(frozen=True)
class CallResults:
    """The results of one model call, for the clips `members`."""

    members: list[int]
    views: int
    activations: dict[str, np.ndarray]
    logits: np.ndarray
    gains: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    gradient_clips: list[int]
    gradient_classes: list[int]
    gradient_values: np.ndarray


def joined(
    parts: Sequence[CallResults], layers: tuple[str, ...], count: int, unreadable: dict[int, InputError]
) -> Extraction:
    """Join the parts' rows, in the order of the given clips; zeros for clips that could not be read."""
    assert parts, "no clips"
    members = np.concatenate([p.members for p in parts])
    clips = np.concatenate([np.array(p.gradient_clips, np.int64) for p in parts])
    order = np.argsort(clips, kind="stable")

    def placed(rows: Sequence[np.ndarray]) -> np.ndarray:
        out = np.zeros((count, rows[0].shape[1]), rows[0].dtype)
        out[members] = np.concatenate(rows)
        return out

    activations = {layer: placed([p.activations[layer] for p in parts]) for layer in layers}
    gradients = {layer: np.concatenate([p.gradients[layer] for p in parts])[order] for layer in layers}
    logits = placed([p.logits for p in parts])
    assert len(members) + len(unreadable) == count
    clips = clips[order]
    bad: dict[tuple[int, str], NonFinite] = {}
    for layer in layers:  # forward before backward, so that a clip's first entry is where the fault began
        for clip in _rows_with_non_finite(activations[layer]):
            bad.setdefault((clip, layer), NonFinite(clip, layer, "activation"))
    for layer in reversed(layers):
        for row in _rows_with_non_finite(gradients[layer]):
            bad.setdefault((int(clips[row]), layer), NonFinite(int(clips[row]), layer, "gradient"))
    for clip in _rows_with_non_finite(logits):
        if not any(other == clip for other, _ in bad):
            bad[(clip, "logits")] = NonFinite(clip, "logits", "logits")
    return Extraction(
        activations=activations,
        gradients=gradients,
        gradient_clips=clips,
        gradient_classes=np.concatenate([np.array(p.gradient_classes, np.int64) for p in parts])[order],
        gradient_values=np.concatenate([p.gradient_values for p in parts])[order],
        logits=logits,
        gains={layer: placed([p.gains[layer][:, None] for p in parts])[:, 0] for layer in layers},
        predicted=logits.argmax(1),
        views=parts[0].views,
        non_finite=tuple(bad.values()),
        unreadable=unreadable,
    )


def _rows_with_non_finite(values: np.ndarray) -> list[int]:
    return np.flatnonzero(~np.isfinite(values).all(1)).tolist()


def nothing_read(layers: tuple[str, ...], unreadable: dict[int, InputError]) -> Extraction:
    """Return the extraction of unreadable clips only: vectors of length 0, since d is unknown."""
    count = len(unreadable)
    return Extraction(
        activations={layer: np.zeros((count, 0), np.float32) for layer in layers},
        gradients={layer: np.zeros((0, 0), np.float32) for layer in layers},
        gradient_clips=np.zeros(0, np.int64),
        gradient_classes=np.zeros(0, np.int64),
        gradient_values=np.zeros(0, np.float32),
        logits=np.zeros((count, 0), np.float32),
        gains={layer: np.zeros(count) for layer in layers},
        predicted=np.zeros(count, np.int64),
        views=0,
        non_finite=(),
        unreadable=unreadable,
    )

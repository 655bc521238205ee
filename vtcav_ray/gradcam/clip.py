"""The maps of one clip in every mode and layer: forwards, backwards, with shuffled weights; and their measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vtcav_ray.errors import InputError
from vtcav_ray.gradcam import measures
from vtcav_ray.gradcam.maps import GradCam, Maps, Mode, assemble, plays_of, seen_masks
from vtcav_ray.heatmaps.boxes import mask, own_object, placement
from vtcav_ray.heatmaps.pointing import pointing
from vtcav_ray.heatmaps.resample import upsample


@dataclass(frozen=True)
class MapSettings:
    """How to compute and measure the maps.

    Attributes:
        modes: the modes to compute.
        window, stride: of the mode `window`, in frames.
        place: xyxy of a part of the source frame, in fractions of it, whose share of the maps is measured; None: none.
    """

    modes: Sequence[Mode]
    window: int
    stride: int
    place: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class ClipMaps:
    """One clip in one mode at one layer.

    Attributes:
        shown: maps of the clip for the class that the model predicts, float32 `[T, h, w]` on the model's input.
        shown_back: the same for the reversed clip and its predicted class, in the original frame order.
        answers: the two predicted classes.
        figures: the measures, named like the columns of `vtcav_ray.tables.GRADCAM`; NaN: not known.
        aligned: (sum, count) of the maps for the clip's own class, aligned to the object's box; None: no object.
    """

    shown: np.ndarray
    shown_back: np.ndarray
    answers: tuple[str, str]
    figures: dict[str, Any]
    aligned: tuple[np.ndarray, np.ndarray] | None


def examine(
    model: GradCam,
    shuffled: GradCam,
    clip_THW3: np.ndarray,
    target: int,
    boxes: Sequence[np.ndarray],
    settings: MapSettings,
) -> dict[tuple[str, Mode], ClipMaps]:
    """Compute the maps and measures of one clip for every layer and mode.

    Args:
        model: the recogniser.
        shuffled: the same recogniser with shuffled weights.
        clip_THW3: uint8 `[T, H, W, 3]`.
        target: index of the class to explain.
        boxes: one `[T, 4]` per track, xyxy in pixels of the model's input; NaN: no box in this frame.
        settings: modes and windows.

    Raises:
        InputError: `non_finite`: NaN or infinity in a map or in the logits.
    """
    x = model.prepare(clip_THW3)
    height, width = x.shape[2:]
    object_index = own_object(boxes)
    own_boxes = None if object_index is None else boxes[object_index]
    inside = torch.from_numpy(mask(boxes, height, width)) if boxes else None
    own_mask = None if own_boxes is None else torch.from_numpy(mask([own_boxes], height, width))
    place = (
        None if settings.place is None else _place_mask(model, settings.place, clip_THW3.shape[1:3], (height, width))
    )
    found: dict[tuple[str, Mode], ClipMaps] = {}
    for mode in settings.modes:
        run = _ClipMaps(model, shuffled, x, target, mode, settings)
        for layer in model.paths:
            own, back = run.map(run.own.maps[layer]), run.map(run.back.maps[layer], back=True)
            shown, shown_back = run.of_answers(layer, own, back)
            figures: dict[str, Any] = {
                **run.figures,
                "flicker": measures.flicker(own),
                "jump": measures.jump(own),
                "direction": measures.similarity(own, back),
                "direction_predicted": measures.similarity(shown, shown_back),
                "shuffled_weights_similarity": measures.similarity(own, run.map(run.shuffled.maps[layer])),
                "empty_share": measures.empty_share(own),
                **dict(zip(("drift_x", "drift_y"), measures.drift(own), strict=True)),
                **dict.fromkeys(TRACK_FIGURES, float("nan")),
            }
            if inside is not None:
                figures["background_share"] = measures.background_share(own, inside.numpy())
                figures["background_chance"] = float(1 - inside.mean())
                figures["pointing"] = pointing(own, inside.numpy())
            if place is not None:
                figures["place_share"] = measures.inside_share(own, place)
                figures["place_area"] = float(place.mean())
            aligned = None
            if own_mask is not None and own_boxes is not None:
                grid = tuple(run.own.maps[layer].shape[1:])
                seen = upsample(seen_masks(own_mask, run.plays, grid), height, width)  # type: ignore[arg-type]
                figures["track_flicker"], figures["track_jump"] = measures.flicker(seen), measures.jump(seen)
                figures["track_drift_x"], figures["track_drift_y"] = measures.drift(seen)
                figures["track_agreement"] = measures.similarity(own, seen)
                aligned = measures.aligned(own, own_boxes)
            found[layer, mode] = ClipMaps(shown, shown_back, run.answers, figures, aligned)
    return found


def _place_mask(
    model: GradCam, place: tuple[float, float, float, float], stored: tuple[int, ...], size: tuple[int, int]
) -> np.ndarray:
    """Return the mask of a part of the source frame on the model's input, float32 `[1, h, w]` in [0, 1].

    Args:
        place: xyxy, fractions of the source frame.
        stored: (height, width) of the stored clip, which shows the whole frame.
        size: (height, width) of the model's input, which may show less of it.
    """
    at = placement(model.recogniser.preprocessor, (1, 1), (stored[0], stored[1]))
    return mask([at.boxes(np.array([place], np.float64))], *size)


TRACK_FIGURES = (
    "background_share",
    "background_chance",
    "pointing",
    "track_flicker",
    "track_jump",
    "track_drift_x",
    "track_drift_y",
    "track_agreement",
)


class _ClipMaps:
    """The model calls of one clip in one mode."""

    def __init__(
        self, model: GradCam, shuffled: GradCam, x: torch.Tensor, target: int, mode: Mode, settings: MapSettings
    ) -> None:
        self.model, self.x, self.target = model, x, target
        self.plays = plays_of(mode, x.shape[1], settings.window, settings.stride)
        self.back_plays = plays_of(mode, x.shape[1], settings.window, settings.stride, reverse=True)
        # A repeated single frame is its own reverse.
        self.symmetric = self.plays == self.back_plays
        self.own = model(x, self.plays, target)
        self.back = self.own if self.symmetric else model(x, self.back_plays, target)
        self.shuffled = shuffled(x, self.plays, target)
        logits, back_logits = self.own.logits.mean(0), self.back.logits.mean(0)
        if not (np.isfinite(logits).all() and np.isfinite(back_logits).all()):
            raise InputError("non_finite", "NaN or infinity in the logits")
        self.predicted, self.predicted_back = int(logits.argmax()), int(back_logits.argmax())
        names = model.recogniser.class_names
        self.figures = {
            "logit": float(logits[target]),
            "logit_change": float(back_logits[target] - logits[target]),
            "predicted": names[self.predicted],
            "predicted_reversed": names[self.predicted_back],
            "passes": len(self.plays),
        }
        shown = (target, target) if self.symmetric else (self.predicted, self.predicted_back)
        self.answers = (names[shown[0]], names[shown[1]])
        self._answered: list[Maps] | None = None

    def map(self, maps_PTHW: torch.Tensor, *, back: bool = False) -> np.ndarray:
        """Return the maps of the plays as `[T, h, w]` on the model's input, in the clip's frame order."""
        if not torch.isfinite(maps_PTHW).all():
            raise InputError("non_finite", "NaN or infinity in a Grad-CAM map")
        return upsample(assemble(maps_PTHW, self.back_plays if back else self.plays), *self.x.shape[2:])

    def of_answers(self, layer: str, own: np.ndarray, back: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the maps of the clip and of the reversed clip, each for the class that the model predicts for it.

        If the mode's plays are their own reverse, the two maps are equal for every class and need no further pass.
        """
        if self.symmetric:
            return own, back
        if self._answered is None:
            self._answered = [
                self.own if self.predicted == self.target else self.model(self.x, self.plays, self.predicted),
                self.back
                if self.predicted_back == self.target
                else self.model(self.x, self.back_plays, self.predicted_back),
            ]
        first, second = self._answered
        return self.map(first.maps[layer]), self.map(second.maps[layer], back=True)

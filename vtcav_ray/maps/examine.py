"""The maps of one clip for one comparison, and the measures that say whether the map shows where the concept is.

A clip's concept map is measured only if the clip has more of the concept than the other side's clips have on average
(`presence` above 0): elsewhere there is nothing to point at. Random directions have no sign, so each is turned to be
positive in the clip, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from vtcav_ray.heatmaps.boxes import mask
from vtcav_ray.maps.inner import Grid, deletions, inner_products, on_frames, timeline
from vtcav_ray.tcav.directions import Directions, on_channels

Activations = Callable[[torch.Tensor], torch.Tensor]  # [B, C, T, h, w] -> [B, T', H', W', C]
NAN = float("nan")


@dataclass(frozen=True)
class Examined:
    """The maps of one clip at one layer.

    Attributes:
        concept, random: maps on the model's input, `[T, h, w]`; `random` is one of the random directions.
        timeline, timeline_random: their means over places, `[T]`; of the random directions, the mean magnitude.
        figures: measures, named like the columns of the table `maps`; NaN: not known.
    """

    concept: Grid
    random: Grid
    timeline: Grid
    timeline_random: Grid
    figures: dict[str, float] = field(default_factory=dict)


def examine(
    x_CThw: torch.Tensor,
    a_THWC: torch.Tensor,
    given: Directions,
    boxes_T4: NDArray[np.float64] | None,
    activations: Activations,
    seed: int,
) -> Examined:
    """Compute maps and measures of one clip.

    Args:
        x_CThw: the model's input.
        a_THWC: its activation at the layer.
        given: the directions, in the layer's channels.
        boxes_T4: the object's box on the input, xyxy pixels; NaN: no box in this frame; None: no object.
        activations: computes the layer's activation for inputs with deleted places.
        seed: of the deletions.

    Raises:
        InputError: `non_finite`: NaN or infinity in an activation.
    """
    channels = a_THWC.shape[-1]
    frames, height, width = x_CThw.shape[1:]
    every = on_channels(np.concatenate((given.concept_d[None], given.random_Rd)), channels)
    base = on_channels(given.base_d[None], channels)[0]
    maps_DTHW = inner_products(a_THWC[None], every, base)[0]
    presence = float(maps_DTHW[0].mean())
    turned = maps_DTHW[1:] * torch.where(maps_DTHW[1:].mean((1, 2, 3), keepdim=True) < 0, -1.0, 1.0)
    concept = on_frames(maps_DTHW[0], frames, height, width)
    figures = {"presence": presence, **dict.fromkeys(MEASURES, NAN)}
    if presence > 0 and maps_DTHW[0, 0].numel() > 1:
        every_map = [maps_DTHW[0].numpy(), *turned.numpy()]
        if boxes_T4 is not None and np.isfinite(boxes_T4[:, 0]).any():
            figures |= _against_the_box(every_map, boxes_T4, height, width)
        figures["deletion"] = _deletion(x_CThw, concept, presence, every[:1], base, activations, seed)
    times = np.stack([timeline(one, frames) for one in turned])
    return Examined(
        concept=concept,
        random=on_frames(turned[0], frames, height, width),
        timeline=timeline(maps_DTHW[0], frames),
        timeline_random=times.mean(axis=0),
        figures=figures,
    )


MEASURES = ("pointing", "pointing_random", "inside", "inside_random", "timing", "timing_random", "deletion")


def _against_the_box(
    every_map: list[NDArray[np.float32]], boxes_T4: NDArray[np.float64], height: int, width: int
) -> dict[str, float]:
    """Return the measures of the concept's map, the first, and their means over the others."""
    covered = torch.from_numpy(mask([boxes_T4], height, width))
    cells = F.adaptive_avg_pool3d(covered[None], every_map[0].shape)[0].numpy()
    speed = _speed(boxes_T4, len(cells))
    measured = np.array([(pointing(one, cells), inside(one, cells), timing(one, speed)) for one in every_map])
    found: dict[str, float] = {}
    for i, name in enumerate(("pointing", "inside", "timing")):
        found[name], found[f"{name}_random"] = float(measured[0, i]), float(measured[1:, i].mean())
    return found


def pointing(map_THW: NDArray[np.float32], covered_THW: NDArray[np.float32]) -> float:
    """Return the share of steps whose largest place overlaps the box (the pointing game); NaN: no step has a box.

    A place of the layer is a square of the frame. A peak between two pixels of it can't be told, so overlap counts.

    Args:
        map_THW: at the layer's resolution.
        covered_THW: the share of each place that the box covers.
    """
    usable = covered_THW.max((1, 2)) > 0
    if not usable.any():
        return NAN
    flat, there = (one[usable].reshape(usable.sum(), -1) for one in (map_THW, covered_THW))
    return float((there[np.arange(len(flat)), flat.argmax(1)] > 0).mean())


def inside(map_THW: NDArray[np.float32], covered_THW: NDArray[np.float32]) -> float:
    """Return how far the map is higher in the box than elsewhere, in standard deviations; NaN: nothing to compare."""
    weight = covered_THW.astype(np.float64)
    spread = float(map_THW.std())
    if not 0 < weight.sum() < weight.size or spread == 0:
        return NAN
    in_box = float((map_THW * weight).sum() / weight.sum())
    elsewhere = float((map_THW * (1 - weight)).sum() / (1 - weight).sum())
    return (in_box - elsewhere) / spread


def timing(map_THW: NDArray[np.float32], speed_T: NDArray[np.float64]) -> float:
    """Return the correlation over time of the map's mean over places with the object's speed; NaN: one is constant."""
    line = map_THW.mean((1, 2), dtype=np.float64)
    usable = np.isfinite(speed_T)
    if usable.sum() < 3 or np.ptp(line[usable]) == 0 or np.ptp(speed_T[usable]) == 0:
        return NAN
    return float(np.corrcoef(line[usable], speed_T[usable])[0, 1])


def _speed(boxes_T4: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Return the speed of the box's centre at each of the layer's steps, pixels per frame; NaN: not known."""
    centres = (boxes_T4[:, :2] + boxes_T4[:, 2:]) / 2
    if len(centres) < 2:
        return np.full(steps, NAN)
    speed = np.linalg.norm(np.gradient(centres, axis=0), axis=1)
    return np.array([part.mean() for part in np.array_split(speed, steps)])


def _deletion(
    x_CThw: torch.Tensor,
    concept_Thw: Grid,
    presence: float,
    direction_1SC: NDArray[np.float32],
    base_SC: NDArray[np.float32],
    activations: Activations,
    seed: int,
) -> float:
    """Return the share of deletions of other places that lower `presence` less than deleting the map's own places."""
    a = activations(deletions(x_CThw, concept_Thw, seed))
    left = inner_products(a, direction_1SC, base_SC)[:, 0].mean((1, 2, 3)).numpy().astype(np.float64)
    drop = presence - left
    return float((drop[1:] < drop[0]).mean() + (drop[1:] == drop[0]).mean() / 2)

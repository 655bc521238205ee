"""Stability: do two halves of the source videos give the same effects?

Every source video is in one half: clips of concepts, random clips and the class examples whose gradients are used. So
the halves share no video, and what repeats is not an accident of the sample. Only stored tables are read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vtcav_ray.faithful.effects import RunClips, Tested, among, effects, weighed
from vtcav_ray.rows import HalfRow
from vtcav_ray.scores.layer_data import ClassGradients, LayerClips, ScoreOptions

SPLITS = 8
PERMUTATIONS = 2000  # of a half's tests


def halves(
    layers: Sequence[LayerClips], clips: RunClips, options: ScoreOptions, alpha: float, splits: int = SPLITS
) -> list[HalfRow]:
    """Return every effect in both halves, for each split. Cells that a half can't compute are left out.

    Args:
        layers: all layers, with the gradients of the run.
        clips: names of the clips.
        options: of the tests; at most `PERMUTATIONS` are used.
        alpha: a cell is called in a half if its own p is at most this.
        splits: number of random splits.
    """
    once = dataclasses.replace(options, permutations=min(options.permutations, PERMUTATIONS))
    videos = sorted({*clips.videos, *(video for layer in layers for one in layer.classes for video in one.videos)})
    rows = []
    for split in range(splits):
        order = np.random.RandomState((options.seed + 7919 * split) % 2**32).permutation(len(videos))
        first = {videos[i] for i in order[: len(videos) // 2]}
        found = [_half(layers, clips, once, chosen) for chosen in (first, set(videos) - first)]
        both = found[0].keys() & found[1].keys()
        for key in sorted(both):
            one, other = found[0][key], found[1][key]
            rows.append(
                HalfRow(
                    split=split,
                    class_=one.class_,
                    layer=one.layer,
                    concept=one.concept,
                    first=one.effect,
                    second=other.effect,
                    first_called=_called(one, alpha),
                    second_called=_called(other, alpha),
                )
            )
    return rows


def _half(
    layers: Sequence[LayerClips], clips: RunClips, options: ScoreOptions, chosen: set[str]
) -> dict[tuple[str, str, str], Tested]:
    kept_N: NDArray[np.bool_] = np.array([video in chosen for video in clips.videos])
    part = [dataclasses.replace(layer, classes=_of_videos(layer.classes, chosen)) for layer in layers]
    # A class without an example in this half has no gradient at any layer.
    if not all(one.classes for one in part):
        return {}
    return {one[:3]: one for one in effects(part, among(clips, kept_N), options) if np.isfinite(one.effect)}


def _of_videos(classes: Sequence[ClassGradients], chosen: set[str]) -> list[ClassGradients]:
    found = []
    for one in classes:
        rows = [i for i, video in enumerate(one.videos) if video in chosen]
        if rows:
            gains = np.full(len(rows), one.gain)
            found.append(weighed(one.name, one.vectors[rows], gains, [one.videos[i] for i in rows]))
    return found


def _called(one: Tested, alpha: float) -> int:
    return int(np.sign(one.effect)) if one.p <= alpha else 0

"""The concept effect: first-order change of the class's logit as the activation moves from "random" to "concept".

    E = mean gradient · (mean z of the concept - mean z of its random set)

It is the pattern direction, NOT scaled to unit length, so its null (random clips instead of the concept's) shrinks as
1/sqrt(n). As in `scores`, gradients are stored as P grad h and activations as z = P a with the same linear P. Their
product is the directional derivative in activation space along P^T (difference of means). Moving the whole activation
by the difference changes the logit by a constant times that; the constant depends on the layer: see `intervention`.

The unit is the source video: rows of one video are averaged first, on both sides and among the class's clips.

p comes from a permutation test over the concept's and the random set's videos. The statistic is Welch's t of the
projections. Studentising makes the test exact if the concept's clips are exchangeable with the random ones, and
asymptotically valid if only the means are equal and the spreads are not (Janssen, Studentized permutation tests for
non-i.i.d. hypotheses, 1997; Chung & Romano, Exact and asymptotically robust permutation tests, 2013). The mean gradient
is held fixed: under the null, no concept clip is special along it, provided that no concept or random clip comes from
the class's videos.

The interval answers a different question: how large is the effect in the population of class videos, concept clips and
random clips? It resamples all three independently, in a two-level bootstrap: class videos above, concept and random
videos below.

Legend: K classes, V class videos (the maximum over classes; padded), J concepts, N rows of the pool, U = n + m videos
of a concept and of its random set, B permutations or resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.cavs.indices import PAD, IndexSets, check_groups, check_pool, padded
from vtcav_ray.tcav.arrays import check_gradients, check_width, video_means
from vtcav_ray.tcav.effect_arithmetic import (
    Settings,
    Side,
    by_video,
    inner_blocks,
    paired,
    unpaired,
    video_index,
)
from vtcav_ray.tcav.effect_cells import EffectCells, VideoGradients
from vtcav_ray.tcav.effect_results import ConceptEffect, ConceptEffects
from vtcav_ray.tcav.permutation import Tails
from vtcav_ray.tcav.strata import Strata, video_labels

__all__ = [
    "ConceptEffect",
    "ConceptEffects",
    "concept_effect",
    "concept_effects",
    "paired_concept_effect",
    "paired_concept_effects",
]


def concept_effect(
    gradients: ArrayLike,
    concept: ArrayLike,
    random: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    class_groups: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    permutations: int = 10_000,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    tails: Tails = "equal",
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> ConceptEffect:
    """Compute the concept effect of one cell.

    Args:
        gradients: of the class's logit at the class's clips, projected, [N, d].
        concept: activations of the concept's clips, [n, d].
        random: activations of matched random clips (still with still, padded with padded), [m, d].
        groups: source video of each of the n + m rows, the concept's first; None: every row is a video. No video may be
            on both sides (if each clip has a twin on the other side, see `paired_concept_effect`).
        class_groups: source video of each gradient, [N].
        strata: label of each of the n + m rows, the concept's first (the class of its video, say). Splits the effect
            into the part within labels and the part that goes with them, and tests the former. A video has one label.
        permutations: B of the test. If there are at most B arrangements, all are enumerated.
        bootstrap: resamples of the interval.
        confidence: of the interval.
        tails: `equal`: p is twice the smaller tail of t. `symmetric`: p counts arrangements whose |t| is as large; it
            finds less where the projections are skewed, and is more robust where the sides' spreads differ.
        seed: of permutations and resamples.
        device: where to compute, such as `cuda`.

    Raises:
        ValueError: empty sides, NaN, shapes that do not fit, a video on both sides, a video with two labels.
    """
    concept_nD, random_mD = _side(concept, "concept"), _side(random, "random")
    check_width(random_mD, concept_nD.shape[1], "random", "concept")
    n, m = len(concept_nD), len(random_mD)
    both = concept_effects(
        [gradients],
        np.concatenate((concept_nD.astype(np.float64), random_mD.astype(np.float64))),
        [np.arange(n)],
        [np.arange(n, n + m)],
        groups=groups,
        class_groups=None if class_groups is None else [class_groups],
        strata=strata,
        permutations=permutations,
        bootstrap=bootstrap,
        confidence=confidence,
        tails=tails,
        seed=seed,
        device=device,
    )
    return both.cell(0, 0)


def concept_effects(
    gradients: Sequence[ArrayLike],
    pool: ArrayLike,
    concepts: IndexSets,
    randoms: IndexSets,
    *,
    groups: ArrayLike | None = None,
    class_groups: Sequence[ArrayLike] | None = None,
    strata: ArrayLike | None = None,
    permutations: int | None = 10_000,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    tails: Tails = "equal",
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> ConceptEffects:
    """Compute the concept effects of K classes and J concepts of one layer, sharing every inner product.

    Args:
        gradients: K arrays [N_k, d].
        pool: activations [N, d] of all concepts' and random clips.
        concepts, randoms: J sets of row indices each (see `train_cavs`); the j-th random set belongs to the j-th
            concept.
        groups: source video of each pool row; class_groups: K arrays, the source video of each gradient.
        strata: label of each pool row, [N].
        permutations: as for `concept_effect`; None: no test, and p is NaN.
        bootstrap, confidence, tails, seed, device: as for `concept_effect`. Cells of equal sizes share their
            arrangements, so their Monte Carlo errors (p: sqrt(p / B)) are identical, not independent.
    """
    pool_ND, videos_N, classes = _check_batch(gradients, pool, groups, class_groups)
    concepts_Jn, randoms_Jm = padded(concepts, len(pool_ND), "concepts"), padded(randoms, len(pool_ND), "randoms")
    if len(concepts_Jn) != len(randoms_Jm):
        raise ValueError(f"concepts and randoms must hold one set per concept: {len(concepts_Jn)}, {len(randoms_Jm)}")
    sides = [
        (by_video(concept[concept != PAD], videos_N), by_video(random[random != PAD], videos_N))
        for concept, random in zip(concepts_Jn, randoms_Jm, strict=True)
    ]
    for j, (left, right) in enumerate(sides):
        shared = np.intersect1d(left.videos, right.videos)
        if shared.size:
            raise ValueError(
                f"{shared.size} source video(s) are in both concepts[{j}] and randoms[{j}]: draw the random set from "
                "other videos (random_sets(..., exclude=)), or use paired_concept_effect where each clip has a twin"
            )
    splits: list[Strata | None] = [None] * len(sides)
    if strata is not None:
        labels_V = video_labels(strata, videos_N)
        splits = [Strata.of(labels_V[left.videos], labels_V[right.videos]) for left, right in sides]
    out = EffectCells.empty(len(classes), len(sides))
    settings = Settings(permutations, bootstrap, confidence, seed, torch.device(device), tails)
    for block, inner_NKV in inner_blocks(classes, pool_ND, settings.device):
        for j, (left, right) in enumerate(sides):
            left_nKV, right_mKV = left.average(inner_NKV), right.average(inner_NKV)
            unpaired(block, left_nKV, right_mKV, settings, out, j, splits[j])
    n_concept, n_random = (np.array([len(pair[side].videos) for pair in sides]) for side in (0, 1))
    no_contrast = tuple(() if split is None else split.no_contrast for split in splits)
    return _finished(out, classes, pool_ND, n_concept, n_random, no_contrast)


def paired_concept_effect(
    gradients: ArrayLike,
    concept: ArrayLike,
    twin: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    class_groups: ArrayLike | None = None,
    permutations: int = 10_000,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    tails: Tails = "equal",
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> ConceptEffect:
    """Compute the effect of a concept against its own twins: the same tracks frozen, reversed, shuffled, or emptied.

    E = mean gradient · mean(z of the clip - z of its twin). Contributions of track, object and background cancel in
    each pair, so far fewer clips suffice. Under the null a clip and its twin can be swapped, so p comes from flipping
    the signs of whole videos' differences (exact if all 2^n are enumerated).

    Args:
        gradients: [N, d], as for `concept_effect`.
        concept: [n, d].
        twin: [n, d]; row i is the twin of the concept's row i.
        groups: source video of each PAIR, [n]; pairs of one video are averaged, and flipped together.
        class_groups: as for `concept_effect`.
        permutations: as for `concept_effect`.
        bootstrap: as for `concept_effect`.
        confidence: as for `concept_effect`.
        tails: as for `concept_effect`.
        seed: as for `concept_effect`.
        device: as for `concept_effect`.

    Raises:
        ValueError: as for `concept_effect`, and if the numbers of twins and clips differ.
    """
    concept_nD, twin_nD = _side(concept, "concept"), _side(twin, "twin")
    if concept_nD.shape != twin_nD.shape:
        raise ValueError(f"concept and twin must pair row by row: shapes {concept_nD.shape} and {twin_nD.shape}")
    together = np.stack((np.arange(len(concept_nD)), np.arange(len(concept_nD)) + len(concept_nD)))
    both = paired_concept_effects(
        [gradients],
        np.concatenate((concept_nD, twin_nD)),
        together[:1],
        together[1:],
        groups=None if groups is None else np.concatenate((np.asarray(groups), np.asarray(groups))),
        class_groups=None if class_groups is None else [class_groups],
        permutations=permutations,
        bootstrap=bootstrap,
        confidence=confidence,
        tails=tails,
        seed=seed,
        device=device,
    )
    return both.cell(0, 0)


def paired_concept_effects(
    gradients: Sequence[ArrayLike],
    pool: ArrayLike,
    concepts: IndexSets,
    twins: IndexSets,
    *,
    groups: ArrayLike | None = None,
    class_groups: Sequence[ArrayLike] | None = None,
    permutations: int | None = 10_000,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    tails: Tails = "equal",
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> ConceptEffects:
    """Compute `paired_concept_effect` for K classes and J concepts of one layer.

    Args:
        gradients, pool, groups, class_groups: as for `concept_effects`; a pair's video is that of the concept's clip.
        concepts, twins: J sets of row indices; `twins[j][i]` is the twin of `concepts[j][i]`.
        permutations, bootstrap, confidence, tails, seed, device: as for `concept_effects`.
    """
    pool_ND, videos_N, classes = _check_batch(gradients, pool, groups, class_groups)
    if groups is None:
        videos_N = np.arange(len(pool_ND))
    concepts_Jn, twins_Jn = padded(concepts, len(pool_ND), "concepts"), padded(twins, len(pool_ND), "twins")
    if concepts_Jn.shape != twins_Jn.shape or ((concepts_Jn == PAD) != (twins_Jn == PAD)).any():
        raise ValueError("concepts and twins must pair one to one, with padding in the same places")
    sides = []
    for concept, twin in zip(concepts_Jn, twins_Jn, strict=True):
        rows, twin_rows = concept[concept != PAD], twin[twin != PAD]
        sides.append((by_video(rows, videos_N), Side(twin_rows, *video_index(videos_N[rows]))))
    out = EffectCells.empty(len(classes), len(sides))
    settings = Settings(permutations, bootstrap, confidence, seed, torch.device(device), tails)
    for block, inner_NKV in inner_blocks(classes, pool_ND, settings.device):
        for j, (left, right) in enumerate(sides):
            paired(block, left.average(inner_NKV) - right.average(inner_NKV), settings, out, j)
    counts = np.array([len(a.videos) for a, _ in sides])
    return _finished(out, classes, pool_ND, counts, counts, ((),) * len(sides))


def _finished(
    cells: EffectCells,
    classes: list[VideoGradients],
    pool_ND: NDArray[np.floating],
    n_concept: NDArray[np.int64],
    n_random: NDArray[np.int64],
    no_contrast: tuple[tuple[str, ...], ...],
) -> ConceptEffects:
    columns, reason = cells.finished(classes, pool_ND, n_concept, n_random)
    return ConceptEffects(
        **columns,
        n_concept=n_concept,
        n_random=n_random,
        reason=reason,
        null_counts=cells.null_counts,
        no_contrast=no_contrast,
    )


def _check_batch(
    gradients: Sequence[ArrayLike],
    pool: ArrayLike,
    groups: ArrayLike | None,
    class_groups: Sequence[ArrayLike] | None,
) -> tuple[NDArray[np.floating], NDArray[np.int64], list[VideoGradients]]:
    pool_ND = check_pool(pool)
    if len(gradients) == 0:
        raise ValueError("gradients holds no classes: give one array [N, d] per class")
    if class_groups is not None and len(class_groups) != len(gradients):
        raise ValueError(f"class_groups must hold one array per class: {len(class_groups)} against {len(gradients)}")
    classes = []
    for k, one in enumerate(gradients):
        name = f"gradients[{k}]" if len(gradients) > 1 else "gradients"
        array = check_gradients(one, name)
        check_width(array, pool_ND.shape[1], name, "the activations")
        labels = None if class_groups is None else class_groups[k]
        classes.append(VideoGradients(video_means(array, labels, "class_groups")))
    return pool_ND, check_groups(groups, len(pool_ND)), classes


def _side(rows: ArrayLike, name: str) -> NDArray[np.floating]:
    array = np.asarray(rows)
    if array.ndim == 2 and len(array) == 0:
        raise ValueError(f"{name} is empty: give at least two clips from different source videos")
    return check_pool(array, name)

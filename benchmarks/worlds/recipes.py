"""The recipes that `benchmarks/truth.py` scores, all on the same clips and the same network.

Ours, with a config's defaults (`activations.layers: auto`, `scores.gradients_at: reference`, equal tails, 100,000
permutations, `correction: step_down`):

- **effect**: the concept effect. A layer of a convolutional network is there as its mean, and as its means over the
  places that move and over those that are still: three columns of one run, whose cells are all corrected for. Here they
  are one answer: the surest of the three, with its sign; its p times three.
- **effect within**: `effect_within` and `p_within`: the part of the effect within the label of the source video. Only
  in the world whose videos have labels.
- **patch**, **patch within**: the same of the patch effect (`vtcav patch RUN --cells all`).

For comparison:

- **effect mean**: the concept effect, on the mean alone;
- **logits**: the same permutation test on the concept's and the random clips' LOGITS. It uses no layer (it is the same
  in all three), so it is no rival: it shows the most that these clips can reveal about whether the class depends on
  the concept;
- **paper**: flattened activations, 10 random sets, SGD-trained CAVs, t-test of P against 1 - P; Bonferroni;
- **captum**: Captum's TCAV tutorial: flattened, its SGDClassifier, 4 random sets, t-test of the concept's scores
  against the random sets' (which, of the same CAVs, are 1 - P); no correction.

The CAVs of the last two come from our `sgd`, which `benchmarks/captum_parity.py` compares with Captum's classifier.

Legend: L layers, each with its projections; K classes of V gradients; J concepts and R random sets of n clips each;
N clips of the pool; C cells (class, layer and projection) of one concept; d numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtcav_ray.cavs import gram, train_cavs
from vtcav_ray.tcav import effect_family, holm_over_families, paper_test

OURS = ("effect", "effect within", "patch", "patch within", "effect mean", "logits")
RECIPES = (*OURS, "paper", "captum")
PAPER_SETS, CAPTUM_SETS = 10, 4


@dataclass(frozen=True)
class Answers:
    """One recipe's answers for L layers, K classes and J concepts: arrays [L, K, J].

    Attributes:
        z: signed; positive: raises the class's logit. Its size breaks ties of equal p. For the paper's and Captum's
            recipes: score - 1/2.
        p: two-sided.
        q: corrected for all cells of the run, as the recipe does.
        column: the surest of the layer's columns; None: there is one.
    """

    z: NDArray[np.float64]
    p: NDArray[np.float64]
    q: NDArray[np.float64]
    column: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Sets:
    """The clips that a concept is compared with.

    Attributes:
        concepts, randoms: rows of the pool, [J, n] and [R, m].
        labels: of the pool's source videos, [N]; None: they have none.
    """

    concepts: NDArray[np.int64]
    randoms: NDArray[np.int64]
    labels: NDArray[np.int64] | None


def tested(values: NDArray[np.float64], sets: Sets, permutations: int, seed: int) -> dict[str, Answers]:
    """Test values of clips as the stage `scores` does: all cells of a concept together, then Holm over the concepts.

    Args:
        values: of each clip and cell, [N, L, columns, K]: products with the mean gradient, or responses.
        sets: the clips of each side.
        permutations: of each test.
        seed: of the arrangements.

    Returns:
        "" -> the answers, and, if the videos have labels, "within" -> those within labels.
    """
    shape = values.shape[1:]
    flat = values.reshape(len(values), -1)
    random = sets.randoms.ravel()
    families = []
    for rows in sets.concepts:
        both = np.concatenate((rows, random))
        strata = None if sets.labels is None else sets.labels[both]
        families.append(effect_family(flat[rows], flat[random], strata=strata, permutations=permutations, seed=seed))
    kinds = {"": ("effect", "p", "p_adjusted")}
    if sets.labels is not None:
        kinds["within"] = ("effect_within", "p_within", "p_within_adjusted")
    out = {}
    for kind, (effect, p, adjusted) in kinds.items():
        q = holm_over_families([getattr(one, adjusted) for one in families])
        z = [getattr(one, effect) / one.null_unit for one in families]
        arrays = (np.stack(part, axis=-1) for part in (z, [getattr(one, p) for one in families], q))
        out[kind] = surest(*(one.reshape(*shape, len(families)) for one in arrays))
    return out


def surest(z: NDArray[np.float64], p: NDArray[np.float64], q: NDArray[np.float64]) -> Answers:
    """Return the surest column of each layer, [L, columns, K, J] -> [L, K, J], with p corrected for the columns."""
    best_p = np.where(np.isnan(p), np.inf, p)
    size = np.where(best_p == best_p.min(axis=1, keepdims=True), np.abs(z), -1.0)
    column = np.nan_to_num(size, nan=-1.0).argmax(axis=1)

    def taken(one: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.take_along_axis(one, column[:, None], axis=1)[:, 0]

    return Answers(taken(z), np.minimum(p.shape[1] * taken(p), 1.0), taken(q), column)


def ask_classical(
    pool: Sequence[NDArray[np.float32]], gradients: Sequence[Sequence[NDArray[np.float32]]], sets: Sets, seed: int
) -> dict[str, Answers]:
    """Compute the answers of the paper's recipe and of Captum's tutorial.

    Args:
        pool: flattened activations of each layer, L arrays [N, d].
        gradients: of each layer and class, at the class's own clips, [V, d].
        sets: the clips.
        seed: of SGD.
    """
    used = sets.randoms[:PAPER_SETS]
    positives, negatives = np.repeat(sets.concepts, len(used), axis=0), np.tile(used, (len(sets.concepts), 1))
    layers = zip(pool, gradients, strict=True)
    counts = np.stack([_scores(a, slopes, positives, negatives, seed) for a, slopes in layers])
    counts = counts.reshape(*counts.shape[:2], len(sets.concepts), len(used))  # [L, K, J, R]
    out = {}
    for recipe, number in (("paper", PAPER_SETS), ("captum", CAPTUM_SETS)):
        own = counts[..., :number]
        p = paper_test(own.reshape(-1, own.shape[-1])).reshape(own.shape[:-1])
        q = np.minimum(p * p.size, 1.0) if recipe == "paper" else p
        out[recipe] = Answers(own.mean(axis=-1) - 0.5, p, q)
    return out


def ask_logits(logits: NDArray[np.float32], sets: Sets, num_layers: int, permutations: int, seed: int) -> Answers:
    """Test the logits [N, K] of the clips; the answer is the same for every layer."""
    values = logits.astype(np.float64)[:, None, None]
    found = tested(values, Sets(sets.concepts, sets.randoms, None), permutations, seed)[""]
    return Answers(*(np.repeat(one, num_layers, axis=0) for one in (found.z, found.p, found.q)))


def mean_alone(values: NDArray[np.float64], sets: Sets, permutations: int, seed: int) -> Answers:
    """Test the first column of each layer, the mean; see `tested`."""
    plain = Sets(sets.concepts, sets.randoms, None)
    return tested(values[:, :, :1], plain, permutations, seed)[""]


def _scores(
    pool: NDArray[np.float32],
    gradients: Sequence[NDArray[np.float32]],
    positives: NDArray[np.int64],
    negatives: NDArray[np.int64],
    seed: int,
) -> NDArray[np.float64]:
    """Return sign counts [K, M]."""
    rows = np.unique(np.concatenate((positives.ravel(), negatives.ravel())))
    place = np.full(len(pool), -1)
    place[rows] = np.arange(len(rows))
    cavs = train_cavs(gram(pool[rows]), place[positives], place[negatives], solver="sgd", seed=seed)
    return np.stack([(cavs.sensitivities(one) > 0).mean(axis=0) for one in gradients])

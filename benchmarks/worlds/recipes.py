"""The recipes that `benchmarks/truth.py` scores, all on the same clips, activations and gradients of one layer.

- **effect mean**: ours, the concept effect with its permutation test, on the default projection; Holm.
- **effect time**, **grid**, **space**, **sketch**, **flat**: the same test on the other projections (`grid:4`,
  `sketch:512`; `flat` is all numbers), to separate what the test misses from what a projection loses;
- **effect X, all classes**: the same with the mean gradient of the class's logit taken at the clips of ALL classes
  (each class weighs the same) and not at the class's own, where the logit may be saturated. No clip of a class is
  among the concepts' or random clips, so the test stays exact;
- **effect moving**, **still**: the mean over the places where a clip moves, or where nothing does. Their weights are
  each clip's own: its gradient has the same weights as its activation;
- **effect places**: both of these, which doubles the number of tests: the smaller p, times two, and its sign. A run
  does this with `layers: [early@moving, early@still]`, whose cells are all among those that Holm corrects for;
- **logits**: the same permutation test on the concept's and the random clips' LOGITS. It uses no layer (it is the same
  in all three), so it is no rival: it shows the most that these clips can reveal about whether the class depends on
  the concept. Gradients integrated along a path from random clips to the concept's add up to this, at every layer;
- **count**: ours, the sign count with the round-robin test, on `mean`; Holm.
- **paper**: flattened activations, 10 random sets, SGD-trained CAVs, t-test of P against 1 - P; Bonferroni.
- **captum**: Captum's TCAV tutorial: flattened, its SGDClassifier, 4 random sets, t-test of the concept's scores
  against the random sets' (which, of the same CAVs, are 1 - P); no correction.

The CAVs of the last two come from our `sgd`, which `benchmarks/captum_parity.py` compares with Captum's classifier.

Legend: J concepts and R random sets of n clips each; K classes of V gradients; d numbers of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vtcav_ray.activations.projections import make_projection
from vtcav_ray.cavs import gram, random_against_random, train_cavs
from vtcav_ray.tcav import adjust, concept_effects, paper_test, round_robin_test

PROJECTIONS = {
    "mean": "mean",
    "time": "time",
    "grid": "grid:4",
    "space": "space",
    "sketch": "sketch:512",
    "flat": "flat",
}
ALL_CLASSES = ("grid", "space", "sketch", "flat")
PLACES = ("moving", "still")
EFFECTS = (
    *(f"effect {name}" for name in (*PROJECTIONS, *PLACES, "places")),
    *(f"effect {name}, all classes" for name in (*ALL_CLASSES, *PLACES, "places")),
)
RECIPES = (*EFFECTS, "logits", "count", "paper", "captum")
PAPER_SETS, CAPTUM_SETS = 10, 4


@dataclass(frozen=True)
class Answers:
    """One recipe's answers for K classes and J concepts: arrays [K, J].

    Attributes:
        z: signed; positive: raises the class's logit. Its size breaks ties of equal p. For counts: score - 1/2.
        p: two-sided.
    """

    z: NDArray[np.float64]
    p: NDArray[np.float64]


def ask(
    pool: NDArray[np.float32],
    gradients: list[list[NDArray[np.float32]]],
    at_classes: list[NDArray[np.float32]],
    logits: NDArray[np.float32],
    concepts: NDArray[np.int64],
    randoms: NDArray[np.int64],
    shape: tuple[int, int, int, int],
    seed: int,
    permutations: int,
) -> dict[str, Answers]:
    """Compute every recipe's answers.

    Args:
        pool: unprojected activations [N, T'H'W'C]; every clip is a separate video.
        gradients: unprojected; `gradients[k][c]` [V, T'H'W'C] is that of class k's logit at the clips of class c.
        at_classes: activations of those clips, `at_classes[c]` [V, T'H'W'C].
        logits: of the pool, [N, K].
        concepts, randoms: rows of the pool, [J, n] and [R, n].
        shape: T', H', W', C of the layer.
        seed: of permutations, splits and SGD.
        permutations: of the effect's test.
    """
    everything = [randoms.ravel()] * len(concepts)

    def tested(slopes: list[NDArray[np.float32]], values: NDArray[np.float32]) -> Answers:
        found = concept_effects(
            slopes, values, list(concepts), everything, permutations=permutations, bootstrap=2, seed=seed
        )
        return Answers(found.z, found.p)

    own = [of_class[k] for k, of_class in enumerate(gradients)]
    answers = {}
    for name, spec in PROJECTIONS.items():
        z, *z_gradients = (_projected(one, shape, spec) for one in (pool, *own))
        answers[f"effect {name}"] = tested(z_gradients, z)
        if spec == "mean":
            answers["count"] = _count(z, z_gradients, concepts, randoms, seed)
        if name in ALL_CLASSES:
            # One row per class: classes weigh the same, independent of their number of clips.
            means = [np.stack([at.mean(axis=0) for at in of_class]) for of_class in gradients]
            answers[f"effect {name}, all classes"] = tested([_projected(one, shape, spec) for one in means], z)
    for name in PLACES:
        projection = make_projection(name, shape)
        z = _projected(pool, shape, name)
        there = [projection.at(torch.from_numpy(a).reshape(-1, *shape)) for a in at_classes]
        of_classes = [
            [there[c].apply(torch.from_numpy(at).reshape(-1, *shape)).numpy() for c, at in enumerate(of_class)]
            for of_class in gradients
        ]
        answers[f"effect {name}"] = tested([of_class[k] for k, of_class in enumerate(of_classes)], z)
        means = [np.stack([at.mean(axis=0) for at in of_class]) for of_class in of_classes]
        answers[f"effect {name}, all classes"] = tested(means, z)
    for which in ("", ", all classes"):
        answers[f"effect places{which}"] = _either(*(answers[f"effect {name}{which}"] for name in PLACES))
    answers["logits"] = tested(list(np.eye(logits.shape[1], dtype=np.float32)[:, None]), logits)
    return answers | _flattened(pool, own, concepts, randoms, seed)


def _either(one: Answers, other: Answers) -> Answers:
    """Return the more certain of two answers, cell by cell, corrected for two tests."""
    first = (one.p < other.p) | ((one.p == other.p) & (np.abs(one.z) >= np.abs(other.z)))
    return Answers(np.where(first, one.z, other.z), np.minimum(2 * np.where(first, one.p, other.p), 1.0))


def corrected(recipe: str, p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p of all cells of one run, corrected as the recipe does."""
    if recipe in (*EFFECTS, "logits", "count"):
        return adjust(p, "holm")
    return np.minimum(p * p.size, 1.0) if recipe == "paper" else p


def _projected(flat: NDArray[np.float32], shape: tuple[int, int, int, int], spec: str) -> NDArray[np.float32]:
    """Apply a projection of the config's, which is linear, so the same for activations and gradients: [N, d]."""
    if spec == "flat":
        return flat
    apply = make_projection(spec, shape).apply
    parts = [apply(torch.from_numpy(flat[i : i + 256]).reshape(-1, *shape)) for i in range(0, len(flat), 256)]
    return np.asarray(torch.cat(parts).numpy())


def _count(
    pool: NDArray[np.float32],
    gradients: list[NDArray[np.float32]],
    concepts: NDArray[np.int64],
    randoms: NDArray[np.int64],
    seed: int,
) -> Answers:
    left, right = random_against_random(list(randoms))
    num = len(randoms)
    positives = np.concatenate((np.repeat(concepts, num, axis=0), left))
    negatives = np.concatenate((np.tile(randoms, (len(concepts), 1)), right))
    counts = _scores(pool, gradients, positives, negatives, "logistic", seed)
    own, null = counts[:, : len(concepts) * num], counts[:, len(concepts) * num :]
    size, p = np.empty((2, len(gradients), len(concepts)))
    for k, one in enumerate(own.reshape(len(gradients), len(concepts), num)):
        tested = round_robin_test(one, np.tile(null[k], (len(concepts), 1)))
        size[k], p[k] = tested.score - 0.5, tested.p
    return Answers(size, p)


def _flattened(
    pool: NDArray[np.float32],
    gradients: list[NDArray[np.float32]],
    concepts: NDArray[np.int64],
    randoms: NDArray[np.int64],
    seed: int,
) -> dict[str, Answers]:
    used = randoms[:PAPER_SETS]
    positives, negatives = np.repeat(concepts, len(used), axis=0), np.tile(used, (len(concepts), 1))
    counts = _scores(pool, gradients, positives, negatives, "sgd", seed)
    counts = counts.reshape(len(gradients), len(concepts), len(used))
    out = {}
    for recipe, sets in (("paper", PAPER_SETS), ("captum", CAPTUM_SETS)):
        own = counts[..., :sets]
        size = own.mean(axis=-1) - 0.5
        p = np.stack([paper_test(one) for one in own])
        out[recipe] = Answers(size, p)
    return out


def _scores(
    pool: NDArray[np.float32],
    gradients: list[NDArray[np.float32]],
    positives: NDArray[np.int64],
    negatives: NDArray[np.int64],
    solver: str,
    seed: int,
) -> NDArray[np.float64]:
    """Return sign counts [K, M]."""
    rows = np.unique(np.concatenate((positives.ravel(), negatives.ravel())))
    place = np.full(len(pool), -1)
    place[rows] = np.arange(len(rows))
    cavs = train_cavs(gram(pool[rows]), place[positives], place[negatives], solver=solver, seed=seed)  # type: ignore[arg-type]
    return np.stack([(cavs.sensitivities(one) > 0).mean(axis=0) for one in gradients])

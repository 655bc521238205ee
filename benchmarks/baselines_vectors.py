"""CAVs, scores and effects beside what a user would write instead: for `throughput.py` and `smoke.py`.

As in `baselines.py`, a way is a pair of calls, theirs and ours, on the same inputs. No videos are needed.
"""

from __future__ import annotations

from typing import Any

import captum_parity
import cavs
import numpy as np
import scipy.stats
import torch
from baselines import Ways
from numpy.typing import NDArray

from vtcav_ray.cavs import gram, train_cavs
from vtcav_ray.tcav import concept_effects, score

N_VIDEOS = 50  # per class


def cav_ways(count: int) -> Ways:
    """Train `count` CAVs of 50 + 50 clips, d = 768. Ours includes the Gram matrix."""
    pool = cavs.activations(1000, 768)

    def ours() -> None:
        cavs.ours(gram(pool), count)

    return {
        "cavs, Captum's classifier in a loop": (lambda: cavs.captum(pool, count), ours),
        "cavs, scikit-learn in a loop": (lambda: cavs.scikit_learn(pool, count), ours),
    }


def captum_ways(runs: int, dim: int) -> Ways:
    """Captum's `TCAV.interpret` for two classes and three concepts, and ours, on a small separate network."""
    torch.manual_seed(0)
    model = captum_parity.Model(dim, 2).eval()
    inputs, n = torch.randn(30, dim), 30
    concepts = {name: torch.randn(n, dim) for name in ("a", "b", "c")}
    randoms = [torch.randn(n, dim) for _ in range(runs)]
    rows = np.arange((3 + runs) * n).reshape(-1, n)

    def ours() -> None:
        with torch.no_grad():
            pool = model.trunk(torch.cat((*concepts.values(), *randoms))).numpy()
        trained = train_cavs(gram(pool), np.repeat(rows[:3], runs, axis=0), np.tile(rows[3:], (3, 1)))
        for target in (0, 1):
            score(captum_parity._gradients(model, inputs, target), trained.vectors)

    return {
        "cavs and scores, Captum's TCAV": (lambda: captum_parity._captum(model, inputs, concepts, randoms, 0), ours)
    }


def score_ways(classes: int, count: int, concepts: int, permutations: int) -> Ways:
    """Scores of `count` CAVs for each class, and concept effects with their p; d = 768, 50 videos per class.

    The loop over CAVs gives the same three figures (sign count, mean, smooth). `scipy.stats.permutation_test` computes
    the effects' p with the same statistic. Neither side computes intervals.
    """
    rng = np.random.default_rng(1)
    gradients = rng.standard_normal((classes, N_VIDEOS, 768), dtype=np.float32) + np.float32(0.1)
    vectors = rng.standard_normal((count, 768), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pool = cavs.activations((concepts + 10) * cavs.N_SIDE, 768)
    rows = np.arange(len(pool)).reshape(-1, cavs.N_SIDE)
    sides = rows[:concepts], [rows[concepts + j % 10] for j in range(concepts)]

    def scores_in_a_loop() -> NDArray[np.float64]:
        return np.array([[_figures(of_class @ cav) for cav in vectors] for of_class in gradients])

    def scores() -> NDArray[np.float64]:
        found = [score(of_class, vectors) for of_class in gradients]
        return np.array([np.stack((one.sign_count, one.magnitude, one.smooth), axis=1) for one in found])

    def effects_in_a_loop() -> list[tuple[float, float]]:
        return [
            _tested(pool[a] @ g, pool[b] @ g, permutations)
            for g in gradients.mean(axis=1)
            for a, b in zip(*sides, strict=True)
        ]

    def effects() -> Any:
        return concept_effects(list(gradients), pool, *sides, permutations=permutations, bootstrap=2)

    assert np.allclose(scores_in_a_loop(), scores(), atol=1e-3), "both say the same"
    return {
        "scores, a NumPy loop over CAVs": (scores_in_a_loop, scores),
        "effects with p, SciPy's permutation test in a loop": (effects_in_a_loop, effects),
    }


def _figures(sensitivities: NDArray[np.float32]) -> tuple[float, float, float]:
    scale = np.sort(np.abs(sensitivities))[(len(sensitivities) - 1) // 2]
    smooth = np.mean(1 / (1 + np.exp(-sensitivities / scale)))
    return float(np.mean(sensitivities > 0)), float(np.mean(sensitivities)), float(smooth)


def _tested(a: NDArray[np.float32], b: NDArray[np.float32], permutations: int) -> tuple[float, float]:
    found = scipy.stats.permutation_test((a, b), _welch, n_resamples=permutations, vectorized=True, axis=0)
    return float(a.mean() - b.mean()), float(found.pvalue)


def _welch(a: NDArray[np.float32], b: NDArray[np.float32], axis: int) -> Any:
    error = np.sqrt(a.var(axis, ddof=1) / a.shape[axis] + b.var(axis, ddof=1) / b.shape[axis])
    return (a.mean(axis) - b.mean(axis)) / error

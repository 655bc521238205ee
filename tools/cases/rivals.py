"""What the paper's recipe and Captum's tutorial claim, on a run's own activations.

- **paper**: 10 random sets, SGD-trained CAVs, a t-test of the score P against 1 - P, Bonferroni over all cells;
- **captum**: 4 random sets, the same test, no correction.

The CAVs come from our `sgd`, which `benchmarks/captum_parity.py` compares with Captum's classifier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtcav_ray.cavs import gram, train_cavs
from vtcav_ray.clips.pools import pool_of
from vtcav_ray.runs.run import Run
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.tcav.significance import paper_test

SETS = {"paper": 10, "captum": 4}
ALPHA = 0.05


def answers(run: Run, concepts: Sequence[str], kind: str = "given") -> list[dict[str, Any]]:
    """Return a row for each layer, class and concept: both recipes' scores, p and claims, beside the concept effect."""
    ours = {
        (row["class"], row["layer"], row["concept"], row["against"]): row for row in run.table("scores").to_pylist()
    }
    own = own_examples(run)
    rows = []
    for layer in run.config.activations.layers:
        pool, slopes = run.table("activations", layer=layer), run.table("gradients", layer=layer)
        vectors, at = vectors_of(pool), vectors_of(slopes)
        names, kinds = (pool[column].to_numpy(zero_copy_only=False) for column in ("name", "kind"))
        pairs = list(zip(slopes["clip_id"].to_pylist(), slopes["class"].to_pylist(), strict=True))
        for concept in concepts:
            here = np.flatnonzero((names == concept) & (kinds == kind))
            others = np.flatnonzero((names == pool_of(f"{concept}/{kind}", kind, set(names))) & (kinds == kind))
            for name in sorted({name for _, name in pairs}):
                gradients = at[[clip in own and own[clip] == name == of for clip, of in pairs]]
                scores = set_scores(vectors, here, others, gradients, max(SETS.values()))
                mine = ours[name, layer, f"{concept}/{kind}", "random"]
                rows.append({"layer": layer, "class": name, "concept": concept, **_of_ours(mine), **_tested(scores)})
    for row in rows:
        row["paper"]["claimed"] = row["paper"]["p"] * len(rows) < ALPHA
        row["captum"]["claimed"] = row["captum"]["p"] < ALPHA
    return rows


def _of_ours(row: Mapping[str, Any]) -> dict[str, Any]:
    columns = ("effect", "ci_low", "ci_high", "q", "significant", "negligible", "effect_within", "q_within")
    return {column: row[column] for column in (*columns, "tcav_score", "tcav_q")}


def _tested(scores: NDArray[np.float64]) -> dict[str, Any]:
    return {
        recipe: {"score": float(scores[:number].mean()), "p": float(paper_test(scores[:number])[0])}
        for recipe, number in SETS.items()
    }


def set_scores(
    vectors: NDArray[np.float32],
    concept: NDArray[np.int64],
    random: NDArray[np.int64],
    gradients: NDArray[np.float32],
    sets: int,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return the sign counts of `sets` CAVs, each of the concept against as many random clips, or half of them."""
    rng = np.random.default_rng(seed)
    size = min(len(concept), max(len(random) // 2, 1))
    randoms = np.stack([rng.choice(random, size, replace=False) for _ in range(sets)])
    used = np.unique(np.concatenate((concept, randoms.ravel())))
    place = np.full(len(vectors), -1)
    place[used] = np.arange(len(used))
    positives = np.repeat(place[concept][None], sets, axis=0)
    cavs = train_cavs(gram(vectors[used]), positives, place[randoms], solver="sgd", seed=seed)
    return np.asarray((cavs.sensitivities(gradients) > 0).mean(axis=0), np.float64)


def own_examples(run: Run) -> dict[str, str]:
    """Return class example -> its class."""
    clips = run.table("answers").select(["clip_id", "set", "name"]).to_pylist()
    return {row["clip_id"]: row["name"] for row in clips if row["set"] == "class"}

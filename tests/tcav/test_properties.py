"""The public functions on all kinds of input: float types, integers, lists, d far above n, duplicates, huge, tiny."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vtcav_ray.cavs import train_cavs
from vtcav_ray.tcav import concept_effect, paired_concept_effect, score

FORMS = ("float32", "float64", "int", "float16", "huge", "tiny", "duplicated", "constant columns", "offset", "list")
SEEDS = st.integers(0, 10**6)


def rows(rng: np.random.Generator, n: int, d: int, form: str):  # type: ignore[no-untyped-def]
    x = rng.standard_normal((n, d))
    if form in ("float32", "float16"):
        return x.astype(form)
    if form == "constant columns":
        x[:, : max(1, d // 2)] = 3.0
    return {
        "int": (x * 10).astype(int),
        "huge": x * 1e15,
        "tiny": x * 1e-12,
        "duplicated": x[rng.integers(0, max(1, n // 3), n)],
        "offset": x + 1e4,
        "list": x.tolist(),
    }.get(form, x)


@settings(max_examples=15, deadline=None)
@given(
    SEEDS,
    st.integers(4, 30),
    st.integers(1, 300),
    st.sampled_from(FORMS),
    st.sampled_from(["logistic", "ridge", "svm", "pattern"]),
    st.booleans(),
    st.sampled_from([0.0, 0.33, 0.95]),
)
def test_a_cav_is_whole_or_marked_and_turns_round_with_its_sides(
    seed: int, n: int, d: int, form: str, solver: str, grouped: bool, held_out: float
) -> None:
    rng = np.random.default_rng(seed)
    pool = rows(rng, 2 * n, d, form)
    groups = rng.integers(0, max(2, n // 2), 2 * n) if grouped else None
    positives = rng.permutation(n)[None, : max(1, n // 2)]
    negatives = n + rng.permutation(n)[None, : max(1, n // 2)]
    options = {"groups": groups, "solver": solver, "held_out": held_out}
    one = train_cavs(pool, positives, negatives, **options)  # type: ignore[arg-type]
    other = train_cavs(pool, negatives, positives, **options)  # type: ignore[arg-type]
    assert one.vectors.shape == (1, d)
    if one.reason[0]:
        assert np.isnan(one.vectors).all()
        assert np.isnan(one.bias).all()
        return
    assert abs(np.linalg.norm(one.vectors[0]) - 1) < 1e-3
    assert np.isfinite(one.bias[0])
    assert 0 <= one.train_accuracy[0] <= 1
    if not grouped and not other.reason[0]:
        assert one.vectors[0] @ other.vectors[0] < -0.99


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(2, 12), st.integers(2, 12), st.integers(1, 400), st.sampled_from(FORMS))
def test_an_effect_is_its_formula_and_turns_round_with_its_sides(seed: int, n: int, m: int, d: int, form: str) -> None:
    rng = np.random.default_rng(seed)
    both = rows(rng, n + m, d, form)
    concept, random = both[:n], both[n:]
    gradients = rows(rng, 7, d, form if form not in ("huge", "tiny") else "float64")
    found = concept_effect(gradients, concept, random, permutations=200, bootstrap=50)
    a, b, mean = np.asarray(concept, float), np.asarray(random, float), np.asarray(gradients, float).mean(axis=0)
    rounding = 1e-5 * np.abs(mean).sum() * np.abs(np.concatenate((a, b))).max() + 1e-30
    assert abs(found.effect - mean @ (a.mean(axis=0) - b.mean(axis=0))) < rounding
    assert abs(found.effect + concept_effect(gradients, random, concept, permutations=200, bootstrap=50).effect) < (
        2 * rounding
    )
    if not found.reason:
        assert 0 < found.p <= 1
        assert found.null_sd > 0
        assert found.ci_low <= found.effect <= found.ci_high
        assert found.z * found.null_sd == np.float64(found.effect) or abs(found.z * found.null_sd - found.effect) < (
            1e-9 * abs(found.effect)
        )
    if n == m:
        paired = paired_concept_effect(gradients, concept, random, permutations=200, bootstrap=50)
        assert abs(paired.effect - found.effect) < 2 * rounding


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(1, 12), st.integers(1, 400), st.sampled_from(FORMS))
def test_scores_are_those_of_a_plain_product(seed: int, n: int, d: int, form: str) -> None:
    rng = np.random.default_rng(seed)
    gradients = rows(rng, n, d, form)
    cavs = rng.standard_normal((4, d))
    cavs[3] = np.nan
    found = score(gradients, cavs)
    plain = np.asarray(gradients, np.float32) @ cavs[:3].T.astype(np.float32)
    assert np.isnan(found.sign_count[3])
    assert found.reason[3]
    if np.abs(plain).max() == 0:
        return
    sure = np.abs(plain) > 1e-4 * np.abs(plain).max()
    assert (np.abs(found.sign_count[:3] - (plain > 0).mean(axis=0)) <= (~sure).mean(axis=0) + 1e-6).all()
    assert np.allclose(found.magnitude[:3], plain.mean(axis=0), rtol=1e-3, atol=1e-3 * np.abs(plain).max())
    assert ((found.smooth[:3] >= 0) & (found.smooth[:3] <= 1)).all()

"""Patch effects from responses: the same test, parts and interval as those of the concept effect."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vtcav_ray.tcav import concept_effect, paired_concept_effect, paired_response_effect, response_effect

RNG = np.random.default_rng(3)
N, M, V, D = 9, 17, 6, 4
CONCEPT, RANDOM = RNG.normal(size=(N, D)) + 0.8, RNG.normal(size=(M, D))
GRADIENTS = RNG.normal(size=(V, D))
OFFSETS = 10 * RNG.normal(size=V)  # what a reference clip's response has without any concept
OPTIONS = {"permutations": 500, "bootstrap": 300, "seed": 1}


def same(one: object, other: object) -> None:
    for field in dataclasses.fields(one):  # type: ignore[arg-type]
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, float):
            assert left == pytest.approx(right, rel=1e-6, nan_ok=True), field.name
        else:
            assert left == right, field.name


def test_after_a_linear_rest_it_is_the_concept_effect() -> None:
    """Then the response at a reference clip is the projection on the gradient there, and a number of its own."""
    groups = [i // 2 for i in range(N)] + [100 + i for i in range(M)]
    strata = ["a" if g % 2 else "b" for g in groups]
    expected = concept_effect(GRADIENTS, CONCEPT, RANDOM, groups=groups, strata=strata, **OPTIONS)
    own, other = CONCEPT @ GRADIENTS.T + OFFSETS, RANDOM @ GRADIENTS.T + OFFSETS
    same(response_effect(own, other, groups=groups, strata=strata, **OPTIONS), expected)
    assert np.isfinite([expected.ci_low, expected.ci_high, expected.p_within]).all()


def test_the_same_for_pairs() -> None:
    twin = RNG.normal(size=(N, D))
    expected = paired_concept_effect(GRADIENTS, CONCEPT, twin, **OPTIONS)
    same(paired_response_effect(CONCEPT @ GRADIENTS.T + OFFSETS, twin @ GRADIENTS.T + OFFSETS, **OPTIONS), expected)


def test_the_interval_also_has_the_spread_over_the_reference_clips() -> None:
    """With responses that differ from clip to clip only, the same mean effect is surer."""
    shift, noise = RNG.normal(size=N + M) * 0.1, 2 * RNG.normal(size=V)
    shift[:N] += 1
    alike = np.repeat(shift[:, None], V, axis=1)
    scattered = shift[:, None] * (1 + noise - noise.mean())
    one = response_effect(alike[:N], alike[N:], **OPTIONS)
    other = response_effect(scattered[:N], scattered[N:], **OPTIONS)
    assert one.effect == pytest.approx(other.effect)
    assert one.p == other.p
    assert other.ci_high - other.ci_low > 3 * (one.ci_high - one.ci_low)


def test_responses_must_be_a_table() -> None:
    with pytest.raises(ValueError, match="reference videos"):
        response_effect(np.zeros(5), np.zeros((5, 2)))

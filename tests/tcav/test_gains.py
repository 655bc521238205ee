"""Sizes of effects at the gain of their layer."""

from __future__ import annotations

import numpy as np
import pytest

from vtcav_ray.tcav import concept_effect
from vtcav_ray.tcav.gains import at_gain, margin, with_gains


def test_equal_gains_leave_the_gradients_as_they_are() -> None:
    gradients = np.arange(6, dtype=np.float32).reshape(3, 2)
    weighed, gain = with_gains(gradients, np.full(3, 128.0))
    assert weighed is gradients
    assert gain == 128.0


def test_the_effect_is_the_mean_of_each_clips_gain_times_its_own_change() -> None:
    rng = np.random.default_rng(0)
    gradients, gains = rng.normal(size=(5, 3)).astype(np.float32), np.array([1.0, 2.0, 40.0, 7.0, 3.0])
    concept, random = rng.normal(size=(6, 3)) + 1, rng.normal(size=(9, 3))
    weighed, gain = with_gains(gradients, gains)
    plain = concept_effect(weighed, concept, random, permutations=50, bootstrap=50)
    found = at_gain(plain, gain)
    each = gains * (gradients @ (concept.mean(axis=0) - random.mean(axis=0)))
    assert found.effect == pytest.approx(each.mean(), rel=1e-5)
    assert (found.z, found.p, found.spread_ratio) == (plain.z, plain.p, plain.spread_ratio)
    assert found.z == pytest.approx(found.effect / found.null_sd)
    assert found.ci_low / plain.ci_low == pytest.approx(gain)
    assert found.effect / found.null_unit == pytest.approx(plain.effect / plain.null_unit)


@pytest.mark.parametrize(
    ("margins", "expected"),
    [([1.0, 4.0, -2.0], 1.0), ([3.0, np.nan, 1.0], 2.0), ([-1.0, -3.0, 5.0], np.nan), ([np.nan], np.nan), ([], np.nan)],
)
def test_the_margin_is_the_median_and_above_0(margins: list[float], expected: float) -> None:
    assert margin(margins) == pytest.approx(expected, nan_ok=True)

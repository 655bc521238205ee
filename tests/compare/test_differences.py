"""The changes of two figures: on the same videos, and on different ones."""

from __future__ import annotations

import numpy as np
import pytest

from vtcav_ray.compare.differences import LayerVectors, effect_changes, independent_change, score_change
from vtcav_ray.scores.cells import Cell


def test_the_score_is_compared_video_by_video() -> None:
    a = {"v1": 0.2, "v2": 0.4, "v3": 0.6, "only here": 0.0}
    moved = score_change(a, {"v1": 0.4, "v2": 0.61, "v3": 0.79})
    assert moved.change == pytest.approx(0.2)
    assert moved.ci_low > 0.15
    assert moved.p < 0.01
    assert np.isnan(score_change(a, {"v1": 0.4}).p)


def test_the_scores_interval_is_students() -> None:
    found = score_change({"a": 0.0, "b": 0.0}, {"a": 0.1, "b": 0.3})
    half = 12.7062 * 0.1  # t of one degree of freedom; the standard error of 0.1 and 0.3 is 0.1
    assert (found.ci_low, found.ci_high) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-4)
    assert found.p == pytest.approx(1 - 2 / np.pi * np.arctan(2))  # two tails of the Cauchy distribution at t = 2


def test_scores_that_all_change_alike_have_no_spread() -> None:
    same = score_change({"a": 0.25, "b": 0.5}, {"a": 0.25, "b": 0.5})
    assert (same.change, same.ci_low, same.ci_high, same.p) == (0, 0, 0, 1)
    moved = score_change({"a": 0.25, "b": 0.5}, {"a": 0.5, "b": 0.75})
    assert (moved.change, moved.ci_low, moved.ci_high, moved.p) == (0.25, 0.25, 0.25, 0)


def test_scores_without_a_common_video_have_no_change() -> None:
    found = score_change({"a": 0.2}, {"b": 0.4})
    assert np.isnan(found.change)
    assert found.paired


def test_half_widths_of_separate_estimates_add_as_variances() -> None:
    change = independent_change((1.0, 0.7, 1.3), (2.0, 1.6, 2.4))
    assert (change.change, change.ci_low, change.ci_high) == pytest.approx((1.0, 0.5, 1.5))
    assert change.p == pytest.approx(8.9e-5, rel=0.02)  # z = 1.96 * 2
    assert np.isnan(independent_change((1.0, np.nan, np.nan), (2.0, 1.6, 2.4)).p)


def cell(own: list[int], other: list[int], *, paired: bool) -> Cell:
    none = np.array([], np.int64)
    return Cell("cup/frozen", "random", "frozen", none, none, np.array(own, int), np.array(other, int), paired)


def test_pairs_and_groups_are_changes_of_the_same_means() -> None:
    """With as many clips on both sides, the mean over pairs is the difference of the means."""
    rng = np.random.default_rng(0)
    pools = [rng.normal(size=(12, 3)) for _ in range(2)]
    slopes = [rng.normal(size=(2, 3)) for _ in range(2)]
    models = [
        LayerVectors(z, {"lift": g, f"only in {i}": g}) for i, (z, g) in enumerate(zip(pools, slopes, strict=True))
    ]
    own, other = list(range(6)), list(range(6, 12))
    found = {}
    for paired in (False, True):  # a pair's clips are of one video
        videos = [f"v{i % 6 if paired else i}" for i in range(12)]
        cells = [cell(own, [], paired=paired), cell(own, other, paired=paired)]
        found[paired] = effect_changes(
            *models, cells, pool_videos=videos, class_videos={"lift": ["x", "y"]}, permutations=100, bootstrap=100,
            seed=0,
        )  # fmt: skip
        assert set(found[paired]) == {("lift", 1)}  # a cell without a side has no change
    one, two = (g.mean(axis=0) @ (z[:6].mean(axis=0) - z[6:].mean(axis=0)) for z, g in zip(pools, slopes, strict=True))
    for one_form in found.values():
        change = one_form["lift", 1]
        assert change.paired
        assert change.change == pytest.approx(two - one)
        assert change.ci_low < change.change < change.ci_high
        assert 0 < change.p <= 1


def test_models_without_a_common_class_have_no_changes() -> None:
    z = np.zeros((4, 2))
    a, b = LayerVectors(z, {"lift": z}), LayerVectors(z, {"drop": z})
    nothing = effect_changes(
        a, b, [cell([0, 1], [2, 3], paired=False)], pool_videos=list("abcd"), class_videos={}, permutations=100,
        bootstrap=100, seed=0,
    )  # fmt: skip
    assert nothing == {}

"""The smallest effect of interest: its unit, and the three answers."""

from __future__ import annotations

import numpy as np
import pytest

from vtcav_ray.tcav import calls, class_margin


def test_the_margin_is_the_distance_of_the_other_classes_from_the_own() -> None:
    values = [5.0, 7.0, 2.0, 2.0, 10.0]
    labels = ["lift", "lift", "drop", "drop", "push"]
    assert class_margin(values, labels, "lift") == pytest.approx(np.sqrt((4**2 + 4**2) / 2))  # both sides count
    assert class_margin(values, labels, "push") == pytest.approx(np.sqrt((4**2 + 8**2) / 2))


def test_clips_of_one_video_count_once_in_the_margin() -> None:
    values, labels = [1.0, 1.0, 4.0, 0.0], ["a", "a", "a", "b"]
    assert class_margin(values, labels, "a") == pytest.approx(2.0)
    assert class_margin(values, labels, "a", groups=["v", "v", "w", "x"]) == pytest.approx(2.5)


def test_a_share_of_the_margin_does_not_depend_on_the_layers_gain() -> None:
    """A layer with 100 times as many places has first-order effects and margins that are 100 times smaller."""
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=40), np.repeat(["a", "b", "c", "d"], 10)
    assert class_margin(values / 100 + 3, labels, "a") == pytest.approx(class_margin(values, labels, "a") / 100)


def test_a_class_alone_has_no_margin() -> None:
    assert np.isnan(class_margin([1.0, 2.0], ["a", "a"], "a"))
    assert np.isnan(class_margin([1.0, 2.0], ["b", "c"], "a"))
    with pytest.raises(ValueError, match="one per clip"):
        class_margin([1.0, 2.0], ["a"], "a")


@pytest.mark.parametrize(
    ("q", "low", "high", "significant", "negligible"),
    [
        (0.01, 0.2, 0.9, True, False),
        (0.01, -0.9, -0.2, True, False),
        (0.01, 0.05, 0.9, False, False),  # it may be too small to matter
        (0.01, 0.02, 0.09, False, True),  # it differs from 0, and does not matter
        (0.01, 0.1, 0.9, False, False),  # at the limit is not beyond it
        (0.20, 0.2, 0.9, False, False),
        (0.20, -0.09, 0.09, False, True),
        (0.20, -0.09, 0.1, False, False),
        (np.nan, 0.2, 0.9, False, False),
        (0.01, np.nan, np.nan, False, False),
    ],
)
def test_three_answers(q: float, low: float, high: float, significant: bool, negligible: bool) -> None:
    found = calls([q], [low], [high], 0.1)
    assert (found.significant.tolist(), found.negligible.tolist()) == ([significant], [negligible])


@pytest.mark.parametrize("none", [0.0, float("nan")])
def test_without_a_smallest_effect_q_decides_and_no_cell_has_no_effect(none: float) -> None:
    found = calls([0.01, 0.01, 0.2], [-1.0, np.nan, -1e-9], [1.0, np.nan, 1e-9], [none] * 3)
    assert found.significant.tolist() == [True, True, False]
    assert not found.negligible.any()


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="min_effect must be at least 0"):
        calls([0.1], [0.0], [1.0], -0.1)
    with pytest.raises(ValueError, match="one per cell"):
        calls([0.1, 0.2], [0.0], [1.0])

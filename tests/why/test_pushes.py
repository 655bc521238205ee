"""Presence and push against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from vtcav_ray.why.pushes import ConceptClips, direction, presence, push

# Rows 0 to 2 are the concept's (two of one video), 3 to 8 the random clips of six videos.
VIDEOS = ["a", "a", "b", *"cdefgh"]
RUNS = [(np.arange(3), np.array(rows)) for rows in ((3, 4), (5, 6), (7, 8))]
CLIPS = ConceptClips("cup/spatial", np.arange(3), np.arange(3, 9), RUNS)


def pool() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)


def test_the_direction_is_the_difference_of_the_means_over_videos() -> None:
    z = pool().astype(float)
    own = ((z[0] + z[1]) / 2 + z[2]) / 2  # the video with two clips counts once
    np.testing.assert_allclose(direction(z, VIDEOS, CLIPS), own - z[3:].mean(axis=0))


def test_a_push_is_the_gain_times_the_gradient_along_the_direction() -> None:
    z, gradient = pool(), np.array([1.0, -2.0, 0.5, 3.0])
    found = push(z @ gradient, VIDEOS, CLIPS, gain=32)
    assert found.push == pytest.approx(32 * direction(z, VIDEOS, CLIPS) @ gradient)
    assert push(z @ -gradient, VIDEOS, CLIPS, gain=32).push == pytest.approx(-found.push)


def test_the_interval_holds_the_central_part_of_the_runs() -> None:
    z, gradient = pool().astype(float), np.array([1.0, -2.0, 0.5, 3.0])
    own = ((z[0] + z[1]) / 2 + z[2]) / 2
    each = [2 * (own - z[other].mean(axis=0)) @ gradient for _, other in RUNS]
    found = push(z @ gradient, VIDEOS, CLIPS, gain=2)
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(np.quantile(each, (0.025, 0.975))))
    assert found.ci_low < found.push < found.ci_high
    without = push(z @ gradient, VIDEOS, ConceptClips("cup/spatial", np.arange(3), np.arange(3, 9), []), gain=2)
    assert np.isnan(without.ci_low)
    assert without.push == found.push


def test_presence_is_the_share_of_random_clips_below_and_ties_count_half() -> None:
    found = presence([-1.0, 0.5, 1.0, 2.0, 9.0], [2.0, 0.0, 1.0, 3.0])
    assert found.tolist() == [0.0, 0.25, 0.375, 0.625, 1.0]


def test_presence_needs_random_clips_and_finite_numbers() -> None:
    with pytest.raises(ValueError, match="random is empty"):
        presence([1.0], [])
    with pytest.raises(ValueError, match="finite"):
        presence([np.nan], [1.0])

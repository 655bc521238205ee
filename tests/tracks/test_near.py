"""Points with another point nearby, against comparing every pair."""

from __future__ import annotations

import numpy as np
import pytest

from vtcav_ray.tracks import near
from vtcav_ray.tracks.copies import NUMBERS, find_copies
from vtcav_ray.tracks.near import with_neighbour


def distances(points: np.ndarray) -> np.ndarray:
    """Return the distance of each point to its nearest other one."""
    wide = points.astype(np.float64)
    apart = np.linalg.norm(wide[:, None] - wide[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return apart.min(1)


def clusters(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    """Return points of which some have no neighbour, some a near one, and some many equal ones, in random order."""
    points = rng.normal(size=(count, width)) / np.sqrt(np.arange(1, width + 1))
    points *= 1.4 / np.linalg.norm(points, axis=1, keepdims=True)
    near_ones = points[: count // 4] + rng.normal(scale=0.08 / width**0.5, size=(count // 4, width))
    equal_ones = np.repeat(points[-1:], count // 5, axis=0)
    made = np.concatenate((points, near_ones, equal_ones)).astype(np.float32)
    return made[rng.permutation(len(made))]


@pytest.mark.parametrize("leaf", [1, 7, 64])
@pytest.mark.parametrize("distance", [0.0, 0.06, 0.2, 5.0])
def test_every_point_with_a_neighbour_is_found(leaf: int, distance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "LEAF", leaf)
    monkeypatch.setattr(near, "COLUMNS", 50)
    points = clusters(np.random.default_rng(0), 200, 12)
    nearest = distances(points)
    marked = with_neighbour(points, distance)
    assert marked[nearest <= distance].all()
    assert not marked[nearest > np.sqrt(distance**2 + 2e-4)].any()
    if distance < 1:
        assert marked.any()
        assert not marked.all()


@pytest.mark.parametrize("count", [0, 1])
def test_a_single_point_has_no_neighbour(count: int) -> None:
    assert not with_neighbour(np.zeros((count, 3), np.float32), 1.0).any()


@pytest.mark.parametrize("leaf", [4, 256])
def test_copies_are_those_of_comparing_every_pair(leaf: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "LEAF", leaf)
    vectors = clusters(np.random.default_rng(1), 300, NUMBERS)
    ids = [f"v{i}" for i in range(len(vectors))]
    expected: dict[str, str] = {}
    for place, video in enumerate(ids):
        if video not in expected:
            apart = np.linalg.norm(vectors[place + 1 :] - vectors[place], axis=1)
            for other in (place + 1 + np.flatnonzero(apart <= 0.2)).tolist():
                expected.setdefault(ids[other], video)
    assert len(expected) > 100
    assert find_copies(ids, vectors, 0.2) == expected

"""The directions and the chance of `benchmarks/pointing.py` on values made by hand, and its figures in docs/maps.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.pointing import FITS, chance, of_means, of_top_places, whitened

ROOT = Path(__file__).parents[2]
MARGIN = 0.05  # stated in docs/maps.md


def test_whitening_damps_a_channel_that_differs_between_places() -> None:
    other = np.zeros((4, 10, 2), np.float32)
    other[:, ::2, 0], other[:, 1::2, 0] = 3, -3
    other[:, ::5, 1], other[:, 1::5, 1] = 1, -1
    own = np.ones((4, 10, 2), np.float32)
    # Variances 9 and 0.4; the ridge adds their mean.
    expected = np.array([1 / (9 + 4.7), 1 / (0.4 + 4.7)])
    found = whitened(own, other)
    np.testing.assert_allclose(found, expected, rtol=0.02)
    np.testing.assert_allclose(of_means(own, other), [1, 1], atol=1e-6)


def test_top_places_lead_to_the_channel_of_a_small_object() -> None:
    rng = np.random.default_rng(0)
    other = rng.normal(0, 0.1, (20, 50, 3)).astype(np.float32)
    own = rng.normal(0, 0.1, (20, 50, 3)).astype(np.float32)
    own[..., 1] += 0.3  # everywhere, little
    own[:, :3, 0] += 4  # at a few places, much
    means, top = (one / np.linalg.norm(one) for one in (of_means(own, other), of_top_places(own, other)))
    assert means[0] < 0.7
    assert top[0] > 0.95


def test_chance_is_the_share_of_random_draws_that_point_at_least_as_often() -> None:
    random = np.array([[0.1, 0.2, 0.3, 0.4]] * 3)
    assert chance(np.full(3, 0.5), random) == 0
    assert chance(np.full(3, 0.1), random) == 1
    assert chance(np.full(1, 0.3), random[:1]) == pytest.approx(0.5, abs=0.02)


def test_the_docs_state_the_measured_figures() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "pointing.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "maps.md").read_text(encoding="utf-8")
    for layer, kinds in found.items():
        assert set(kinds) == set(FITS)
        for name, row in kinds.items():
            assert line(layer, name, row) in text
    # What the page's text concludes from them.
    early, middle = found["early"], found["middle"]
    assert all(row["margin"][1] > MARGIN and row["p_directions"] < 0.05 for row in early.values())
    assert all(row["deletion"][1] > 0.5 for row in early.values())
    assert all(row["deletion"][1] < 0.5 and row["p_directions"] > 0.05 for row in middle.values())
    assert middle["means"]["margin"][1] < MARGIN < middle["whitened"]["margin"][1]


def line(layer: str, name: str, row: dict[str, Any]) -> str:
    """Return a row of the table in docs/maps.md."""

    def interval(values: list[float], form: str) -> str:
        return f"{values[0]:{form}} [{values[1]:{form}}, {values[2]:{form}}]"

    cells = (
        f"`{layer}`",
        name,
        f"{row['pointing']:.2f}",
        f"{row['random']:.2f}",
        interval(row["margin"], "+.2f"),
        f"{row['p_directions']:.3f}",
        interval(row["inside"], "+.2f"),
        interval(row["deletion"], ".2f"),
    )
    return f"| {' | '.join(cells)} |"

"""The worlds and the recipes of `benchmarks/truth.py`, on values made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.slow
def test_motion_and_backdrop_go_with_the_label_in_four_fifths_of_the_videos() -> None:
    from worlds.clips import render_together

    pool = render_together(0, 100)
    assert pool.labels is not None
    motion, backdrop, kind = (pool.levels[name] for name in ("motion", "backdrop", "kind"))
    for label in (0, 1):
        own = pool.labels == label
        assert own.sum() == 50
        assert (motion[own] == label).mean() == (backdrop[own] == label).mean() == pytest.approx(0.8)
        # Given the label, they are independent of each other.
        assert ((motion == label) & (backdrop == label))[own].mean() == pytest.approx(0.64)
        assert ((motion != label) & (backdrop != label))[own].mean() == pytest.approx(0.04)
    assert kind.mean() == 0.5


def test_the_default_columns_are_those_of_a_convolutional_network() -> None:
    from worlds.recogniser import COLUMNS

    assert list(COLUMNS) == ["early", "middle", "late"]
    assert COLUMNS["early"] == ("early", "early@moving", "early@still")


def test_the_surest_column_has_its_own_sign_and_pays_for_the_others() -> None:
    from worlds.recipes import surest

    # One layer with three columns, one class, two concepts.
    z = np.array([[[[1.0, 2.0]], [[-3.0, -2.5]], [[0.5, 0.1]]]])
    p = np.array([[[[0.2, 0.01]], [[0.01, 0.01]], [[0.9, np.nan]]]])
    found = surest(z, p, p * 2)
    assert found.z.tolist() == [[[-3.0, -2.5]]]  # of equal p, the larger |z|
    np.testing.assert_allclose(found.p, [[[0.03, 0.03]]])
    np.testing.assert_allclose(found.q, [[[0.02, 0.02]]])


def test_within_labels_finds_what_is_used_and_not_what_goes_along() -> None:
    """Values that depend on the motion alone, in videos whose label goes with motion and backdrop."""
    from worlds.recipes import Sets, tested

    rng = np.random.default_rng(0)
    label = rng.integers(2, size=4000)
    motion, backdrop = (np.where(rng.random(4000) < 0.8, label, 1 - label) for _ in range(2))
    values = motion + 0.1 * rng.standard_normal(4000)
    left = rng.permutation(4000)
    sides = []
    for factor in (motion, backdrop):
        rows = [row for row in left if factor[row] == 1][:200]
        left = np.setdiff1d(left, rows)
        sides.append(rows)
    sets = Sets(np.array(sides), rng.permutation(left)[:400].reshape(4, 100), label)
    found = tested(values[:, None, None, None], sets, 2000, 0)
    used, along = 0, 1
    assert found[""].q[0, 0, used] < 0.01
    assert found[""].q[0, 0, along] < 0.01  # it goes along: without the label it looks used
    assert found["within"].q[0, 0, used] < 0.01
    assert found["within"].z[0, 0, used] > 0
    assert found["within"].p[0, 0, along] > 0.05
    assert list(tested(values[:, None, None, None], Sets(sets.concepts, sets.randoms, None), 200, 0)) == [""]


def test_what_goes_along_is_counted_apart() -> None:
    from worlds.recogniser import LAYERS
    from worlds.scoring import CONCEPTS, cells_of, summary

    shape = (len(LAYERS), 2, len(CONCEPTS))
    z, p = np.ones(shape), np.full(shape, 0.5)
    p[:, :, CONCEPTS.index("stripes")] = 0.001
    one = {"mean": 1.0, "error": 0.1}
    factors = {name: [one, one] for name in ("kind", "motion", "backdrop")}
    run = {
        "world": "together",
        "seed": 0,
        "swaps": factors,
        "moves": dict.fromkeys(LAYERS, factors),
        "answers": {"effect": {"z": z.tolist(), "p": p.tolist(), "q": p.tolist()}},
    }
    figures = summary(cells_of(run))
    assert list(figures) == ["effect"]
    assert (figures["effect"]["along_called"]["hits"], figures["effect"]["along_called"]["cells"]) == (6, 12)
    assert figures["effect"]["along_p"]["hits"] == 6
    assert figures["effect"]["none_called"]["hits"] == 6

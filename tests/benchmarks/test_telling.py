"""The areas under ROC of `benchmarks/faithful_truth.py`, on figures made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FALSE = ("ball", "box", "stripes", "checks")


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def run(world: str, figures: dict[str, dict[str, Any]], seed: int = 0) -> dict[str, Any]:
    """Return a run whose cells have one figure each, by concept; `left` and `right` are true."""
    items = [
        {"subject": name, "true": name in ("left", "right"), "figures": {"made up": one}}
        for name, one in figures.items()
    ]
    return {"world": world, "seed": seed, "cells": items, "curves": [], "pairs": [], "concepts": []}


def test_a_figure_that_ranks_the_true_ones_first_tells() -> None:
    from worlds.telling import summary

    sizes = {"left": 5.0, "right": 4.0} | dict.fromkeys(FALSE, 1.0)
    found = summary([run("motion", {name: {"size": size} for name, size in sizes.items()})])["made up"]
    assert found["motion"] == {"auc": 1.0, "low": 1.0, "high": 1.0, "moved": None}
    assert found["tells"]


def test_the_area_is_the_share_of_pairs_in_the_right_order_and_ties_count_half() -> None:
    from worlds.telling import summary

    sizes = {"left": 3.0, "right": 0.0, "ball": 1.0, "box": 0.0, "stripes": 2.0, "checks": 4.0}
    found = summary([run("motion", {name: {"size": size} for name, size in sizes.items()})])["made up"]
    # left is above 3 of 4; right is above none, and equal to box.
    assert found["motion"]["auc"] == pytest.approx((3 + 0.5) / 8, abs=1e-4)
    assert found["motion"]["low"] <= found["motion"]["auc"] <= found["motion"]["high"]
    assert not found["tells"]


def test_p_comes_before_the_size_and_an_unknown_figure_last() -> None:
    from worlds.telling import surest

    small_p, large, unknown = {"size": 1.0, "p": 0.01}, {"size": 9.0, "p": 0.5}, {"size": None, "p": 0.001}
    assert surest([large, small_p, unknown]) is small_p
    assert surest([{"size": 1.0, "p": 0.01}, {"size": 2.0, "p": 0.01}])["size"] == 2.0


@pytest.mark.slow
def test_worlds_are_averaged_and_one_below_the_bar_is_enough_not_to_tell() -> None:
    from worlds.telling import summary

    good = {"left": {"size": 5.0}, "right": {"size": 4.0}, "ball": {"size": 1.0}, "box": {"size": 1.0}}
    # In the world `kind`, ball and box are true: `run` marks left and right, so give the marks by hand.
    bad = run("kind", good)
    for item in bad["cells"]:
        item["true"] = item["subject"] in ("ball", "box")
    found = summary([run("motion", good), run("motion", good, 1), bad])["made up"]
    assert (found["motion"]["auc"], found["kind"]["auc"], found["all"]["auc"]) == (1.0, 0.0, 0.5)
    assert not found["tells"]


def test_a_factor_is_true_if_one_of_its_levels_is() -> None:
    from worlds.telling import is_true

    assert is_true("both", "kind")
    assert is_true("both", "motion")
    assert not is_true("both", "backdrop")
    assert is_true("together", "left")
    assert not is_true("together", "stripes")  # it only goes along
    assert not is_true("motion", "random")


def test_a_layer_moves_a_concept_if_the_logit_goes_as_planted() -> None:
    from worlds.telling import layer_moves

    # From the second level (right) to the first (left), class 0 rises as planted, and class 1 should fall.
    moves = {"early": {"motion": [{"mean": 1.0, "error": 0.1}, {"mean": 1.0, "error": 0.1}]}}
    found = [layer_moves({"world": "motion", "moves": moves}, "early", k, "left") for k in (0, 1)]
    assert found == [True, False]
    assert layer_moves({"world": "motion", "moves": moves}, "early", 0, "right")
    assert not layer_moves({"world": "motion", "moves": moves}, "early", 0, "random a")


def committed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((BENCHMARKS / "results" / "faithful_truth.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.full
def test_the_report_shows_what_tells_in_the_committed_runs_and_leaves_out_what_does_not() -> None:
    from worlds.telling import TRAINED, summary, tells

    shown = ("halves r", "real change", "first decisive")
    left_out = ("necessity p", "area beyond random", "insertion area", "same sign", "shuffled whole", "halves verdict")
    found = summary(committed()["runs"], only=(*shown, *left_out))
    assert all(found["necessity p"][world] for world in TRAINED)
    told = {name: tells(found[name]) for name in found}
    assert [told[name] for name in shown] == [True] * len(shown)
    assert [told[name] for name in left_out] == [False] * len(left_out)


def test_the_smoke_run_fails_on_unstable_effects_and_on_calls_with_shuffled_weights() -> None:
    from faithful_truth import complaints

    found = {
        "networks": {"motion": 1},
        "summary": {"halves r": {"all": {"auc": 1.0}}},
        "levels": {"whole": {"called": 0, "cells": 100}},
    }
    assert complaints(found) == []
    found["summary"]["halves r"]["all"]["auc"] = 0.6
    found["levels"]["whole"]["called"] = 20
    assert [text.partition(": ")[2][:4] for text in complaints(found)] == ["area", "20 o"]
    untrained = {"networks": {"motion": 0}, "runs": [{"not_scored": "0.7 of held-out clips right"}]}
    assert complaints(untrained) == ["faithful_truth: 0.7 of held-out clips right"]

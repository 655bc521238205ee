"""The table `faithfulness` from raw rows that are written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vtcav_ray.faithful.across import across_layers
from vtcav_ray.faithful.curves import curve_rows
from vtcav_ray.faithful.plan import Chosen, choose_sets
from vtcav_ray.faithful.summary import first_order, necessity, randomised, stability
from vtcav_ray.rows import ErasureRow, FaithfulnessRow, FiniteChangeRow, HalfRow, RandomisedRow, table_of
from vtcav_ray.scores.choose import CellKey

UP, CUP = "up/spatiotemporal", "cup/spatial"


def erased(video: str, what: str, name: str, *changes: float, right: int = 1, clip: str = "") -> ErasureRow:
    return ErasureRow(
        clip_id=clip or f"class/lift/{video}", video_id=video, class_="lift", layer="late", what=what, name=name,
        changes=list(changes), predicted=[right] * len(changes),
    )  # fmt: skip


def by_measure(rows: list[FaithfulnessRow]) -> dict[str, FaithfulnessRow]:
    found = {row.measure: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_necessity_is_a_mean_over_videos_ranked_among_random_directions_of_its_kind() -> None:
    rows = [
        erased("a", "pattern", UP, -4.0, clip="1"), erased("a", "pattern", UP, -2.0, clip="2"),
        erased("b", "pattern", UP, -1.0, right=0), erased("a", "filter", UP, -3.0), erased("b", "filter", UP, -1.0),
    ]  # fmt: skip
    for r, change in enumerate((0.0, -0.5, -2.0, -3.0)):  # the concept's own is -2: two of four are as low
        rows += [erased(video, "random", f"spatiotemporal#{r}", change) for video in "ab"]
    rows += [erased(video, "random", "spatial#0", -9.0) for video in "ab"]  # of another kind
    found = by_measure(necessity(table_of(rows, ErasureRow)))
    change = found["change"]
    assert (change.value, change.n, change.random, change.p) == (-2.0, 2, pytest.approx(-1.375), pytest.approx(3 / 5))
    assert change.ci_low is not None
    assert change.ci_low <= -2 <= change.ci_high
    assert found["change along the CAV"].value == -2.0
    assert found["still answered"].value == 0.5


def test_one_video_has_no_interval_and_no_random_direction_no_p() -> None:
    (row, _) = necessity(table_of([erased("a", "pattern", UP, -1.0)], ErasureRow))
    assert (row.value, row.ci_low, row.ci_high, row.random, row.p) == (-1.0, None, None, None, None)


def test_areas_are_ranked_among_chains_of_random_directions() -> None:
    rows = []
    for video in "abc":
        rows += [
            erased(video, "in_order", f"{UP}, {CUP}", -4.0, -5.0),
            erased(video, "reversed", f"{CUP}, {UP}", -1, -5),
        ]
        rows += [erased(video, "shuffled", f"{CUP}, {UP}", -1.0, -5.0)]
        rows += [erased(video, "random_order", f"#{r}", -0.5 * r, -1.0 * r) for r in range(3)]
    found = {(row.check, row.measure): row for row in curve_rows(table_of(rows, ErasureRow))}
    assert found["deletion", "area in order of effect"].value == 4.5
    assert found["deletion", "area in order of effect"].p == pytest.approx(1 / 4)
    assert found["deletion", "area in reverse order"].value == 3.0
    assert found["deletion", "area beyond random directions"].value == pytest.approx(4.5 - 0.75)
    assert found["deletion", "area beyond the reverse order"].value == 1.5
    assert found["insertion", "area in order of effect"].value == pytest.approx(np.mean([-1 + 5, 0 + 5]))
    assert found["insertion", "area in reverse order"].value == pytest.approx(np.mean([-4 + 5, 0 + 5]))
    alone = [row for row in rows if row.what != "random_order"]
    assert curve_rows(table_of(alone, ErasureRow)) == []


def shuffled(level: str, concept: str, z: float, p: float) -> RandomisedRow:
    return RandomisedRow(level=level, class_="lift", layer="late", concept=concept, z=z, p_adjusted=p)


def test_shuffled_weights_that_keep_the_effects_are_a_warning() -> None:
    names = [f"{i}/spatial" for i in range(4)]
    own = {CellKey("lift", "late", name, "random"): {"z": float(i)} for i, name in enumerate(names)}
    own[CellKey("lift", "late", "none/spatial", "random")] = {"z": None}
    rows = [shuffled("whole", name, 2.0 * i, 0.01) for i, name in enumerate(names)]
    rows += [shuffled("whole", "none/spatial", 9.0, 1e-9), shuffled("whole", "unknown/spatial", 9.0, 1e-9)]
    rows += [shuffled("after late", name, (3.0, -3.0, -3.0, 3.0)[i], 1.0) for i, name in enumerate(names)]
    rows += [shuffled("after early", name, 1.0, 1.0) for name in names[:2]]  # too few for a correlation
    found = {(row.layer, row.measure): row for row in randomised(table_of(rows, RandomisedRow), own, alpha=0.06)}
    assert set(found) == {(level, what) for level in ("whole", "after late") for what in ("called", "correlation")}
    assert found["whole", "correlation"].value == pytest.approx(1.0)
    called = found["whole", "called"]
    assert (called.value, called.n) == (4.0, 4)  # 0.01 times six families is 0.06
    assert "4 of 4 effects are called although all weights are shuffled." in called.note
    assert "go along with the run's: r 1.00." in called.note
    assert found["after late", "correlation"].value == pytest.approx(0.0, abs=1e-9)
    assert found["after late", "called"].note == ""
    assert randomised(None, own, 0.05) == []


def half(split: int, layer: str, first: float, second: float, *called: int) -> HalfRow:
    return HalfRow(
        split=split, class_="lift", layer=layer, concept=UP, first=first, second=second,
        first_called=called[0], second_called=called[1],
    )  # fmt: skip


def test_halves_agree_after_layers_are_scaled_alike() -> None:
    rows = [half(0, "early", 100.0, 100.0, 1, 1), half(0, "late", 1.0, 1.0, 1, 0), half(0, "head", -0.1, -0.1, 0, 0)]
    rows += [half(1, "early", 1.0, -1.0, 1, -1), half(1, "late", 1.0, -1.0, 0, 0)]  # two cells: no correlation
    found = by_measure(stability(table_of(rows, HalfRow)))
    assert (found["correlation of halves"].value, found["correlation of halves"].n) == (pytest.approx(1.0), 1)
    assert found["same verdict"].value == pytest.approx(np.mean([2 / 3, 1 / 2]))
    assert (found["same verdict"].ci_low, found["same verdict"].ci_high) == (1 / 2, pytest.approx(2 / 3))
    called = found["same verdict where one half calls"]
    assert (called.value, called.n) == (pytest.approx(1 / 3), 3)
    assert stability(None) == []


def moved(concept: str, video: str, predicted: float, real: float) -> FiniteChangeRow:
    return FiniteChangeRow(
        clip_id=video, video_id=video, class_="lift", layer="late", concept=concept, predicted=predicted, real=real
    )


def test_a_real_change_of_the_other_sign_is_noted() -> None:
    rows = []
    for concept, predicted, real in (("a/spatial", 1.0, 0.5), ("b/spatial", 2.0, 1.0), ("c/spatial", 1.0, -2.0)):
        rows += [moved(concept, video, predicted + d, real + d) for video, d in (("x", 0.1), ("y", 0.0), ("z", -0.1))]
    found = first_order(table_of(rows, FiniteChangeRow))
    cells = {(row.concept, row.measure): row for row in found if row.concept}
    assert cells["a/spatial", "real change"].value == pytest.approx(0.5)
    assert cells["a/spatial", "first-order change"].value == pytest.approx(1.0)
    assert {concept for (concept, _), row in cells.items() if row.note} == {"c/spatial"}
    of_layer = by_measure([row for row in found if row.concept is None])
    assert of_layer["slope"].value == pytest.approx((0.5 + 2.0 - 2.0) / 6.0)
    assert of_layer["same sign"].value == pytest.approx(2 / 3)
    assert of_layer["correlation"].value == pytest.approx(np.corrcoef([1, 2, 1], [0.5, 1.0, -2.0])[0, 1])
    assert first_order(None) == []
    assert {row.concept for row in first_order(table_of(rows[:3], FiniteChangeRow))} == {"a/spatial"}


def cell(z: float | None, significant: bool = True, within: float | None = 0.01) -> dict[str, Any]:
    return {"z": z, "significant": significant, "q_within": within}


def test_the_first_decisive_layer_and_the_agreement_of_neighbours() -> None:
    names = ("a", "b", "c")
    chosen = Chosen(("early", "middle", "late"), ("lift",), names, 8, 20, {})
    scores = {
        CellKey("lift", layer, name, "random"): one
        for layer, of_layer in {
            "early": [cell(1.0, significant=False), cell(2.0, within=0.5), cell(3.0, within=None)],
            "middle": [cell(1.5), cell(2.5, within=0.5), cell(-9.0, significant=False)],
            "late": [cell(None), cell(1.0), cell(2.0, significant=False)],
        }.items()
        for name, one in zip(names, of_layer, strict=True)
    }
    rows = across_layers(chosen, scores, alpha=0.05)
    first = {row.concept: (row.layer, row.value, row.n) for row in rows if row.measure == "first decisive"}
    assert first == {"a": ("middle", 1.0, 2), "b": ("late", 2.0, 1)}
    assert next(row.note for row in rows if row.concept == "a") == "Decisive at 2 of 3 layers, first at middle."
    agreement = [row for row in rows if row.measure != "first decisive"]
    assert {row.layer for row in agreement} == {"early"}  # from middle to late only two cells have a z
    by = by_measure(agreement)
    assert by["rank correlation with the next layer"].value == pytest.approx(-0.5)  # ranks 1 2 3 and 2 3 1
    assert by["same sign as the next layer"].value == pytest.approx(2 / 3)


def test_curves_take_the_largest_effects() -> None:
    effects = {
        CellKey("lift", "late", name, "random"): size
        for name, size in {"a": 0.5, "b": -2.0, "c": 1.0, "d": float("nan")}.items()
    }
    chosen = choose_sets(list(effects), effects, clips=4, random_sets=20, in_curves=2)
    assert (chosen.layers, chosen.classes, chosen.concepts) == (("late",), ("lift",), ("a", "b", "c", "d"))
    assert chosen.orders == {("lift", "late"): ("b", "c")}

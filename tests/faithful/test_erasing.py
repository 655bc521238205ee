"""Erasing the directions of a layer, on a linear network whose changes are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vtcav_ray.faithful.erasing import CHAINS, Example, LayerEraser
from vtcav_ray.faithful.plan import Chosen, LayerDirections

D, R = 4, 20
WEIGHTS = np.array([[2.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]], np.float32)  # of the classes lift and drop
UP, CUP = "up/spatiotemporal", "cup/spatial"
BASE = np.full(D, 0.5, np.float32)


class LinearRest:
    """In the place of `ErasedNetwork`: one place per clip, and logits that are linear in its channels."""

    channels = D

    def __init__(self, activations: np.ndarray) -> None:
        self.a = activations.astype(np.float32)
        self.plain = self.a @ WEIGHTS.T

    def erased(self, basis_SCk: np.ndarray, base_SC: np.ndarray) -> np.ndarray:
        q = basis_SCk[0]
        return (self.a - (self.a - base_SC[0]) @ q @ q.T) @ WEIGHTS.T

    def shifted(self, _: object, delta_d: np.ndarray) -> np.ndarray:
        return (self.a + delta_d) @ WEIGHTS.T


def eraser(**changes: Any) -> LayerEraser:
    axes = np.eye(D, dtype=np.float32)
    random = {kind: np.tile(axes[3], (R, 1)) for kind in ("spatiotemporal", "spatial")}
    directions: dict[str, Any] = {
        "pattern": {UP: axes[0], CUP: axes[1]}, "shift": {UP: 3 * axes[0], CUP: axes[2]}, "filters": {UP: axes[1]},
        "random": random, "base": dict.fromkeys(random, BASE),
        "kind_of": {UP: "spatiotemporal", CUP: "spatial"}, **changes,
    }  # fmt: skip
    orders = {("lift", "late"): (UP, CUP), ("drop", "late"): (CUP,)}
    chosen = Chosen(("late",), ("lift", "drop"), (UP, CUP), 8, R, orders)
    gradients = {"lift": WEIGHTS[0], "drop": WEIGHTS[1]}
    examples = [
        Example("1", "a", "lift", gradients),
        Example("2", "b", "lift", {"lift": WEIGHTS[0]}),
        Example("3", "c", "drop", gradients),
    ]
    network: Any = LinearRest(np.array([[4.0, 1, 0, 0], [1.0, 1, 0, 0], [0.0, 3, 0, 0]]))
    places = {"lift": 0, "drop": 1}
    return LayerEraser(network, examples, places, "logit", LayerDirections(**directions), chosen, "late", seed=7)


def changes(rows: list[Any], what: str, name: str) -> list[list[float]]:
    return [row.changes for row in rows if (row.what, row.name) == (what, name)]


def test_one_direction_at_a_time_moves_the_class_to_that_of_the_base() -> None:
    rows = eraser().single()
    assert changes(rows, "pattern", UP) == [[2 * (0.5 - 4)], [2 * (0.5 - 1)], [0.0]]  # of each example's own class
    assert changes(rows, "pattern", CUP) == [[0.0], [0.0], [0.5 - 3]]
    assert changes(rows, "filter", UP) == [[0.0], [0.0], [0.5 - 3]]
    assert not [row for row in rows if (row.what, row.name) == ("filter", CUP)]  # it has no CAV
    assert {row.name for row in rows if row.what == "random"} == {
        f"{kind}#{r}" for kind in ("spatiotemporal", "spatial") for r in range(R)
    }
    assert all(row.changes == [0.0] for row in rows if row.what == "random")  # no class reads axis 3


def test_the_answer_after_erasing_is_kept() -> None:
    rows = [row for row in eraser().single() if (row.what, row.name) == ("pattern", UP)]
    # Erased, the first clip has logits 1 and 1 (the first one is taken), the third 1 and 3.
    assert [row.predicted for row in rows] == [[1], [1], [1]]
    base = dict.fromkeys(("spatiotemporal", "spatial"), np.zeros(D, np.float32))
    rows = [row for row in eraser(base=base).single() if (row.what, row.name) == ("pattern", UP)]
    assert [row.predicted for row in rows] == [[0], [0], [1]]


def test_curves_erase_one_concept_after_the_other_for_their_class_alone() -> None:
    rows = eraser().curves()
    assert {row.class_ for row in rows} == {"lift"}  # drop has a single concept
    assert changes(rows, "in_order", f"{UP}, {CUP}") == [[-7.0, -7.0], [-1.0, -1.0]]
    assert changes(rows, "reversed", f"{CUP}, {UP}") == [[0.0, -7.0], [0.0, -1.0]]
    assert len({row.name for row in rows if row.what == "random_order"}) == min(CHAINS, R)
    assert len([row for row in rows if row.what == "shuffled"]) == 2


def test_a_shift_is_compared_with_its_first_order_where_there_is_a_gradient() -> None:
    rows = {(row.clip_id, row.class_, row.concept): row for row in eraser().finite(SimpleNamespace())}
    assert ("2", "drop", UP) not in rows
    assert len(rows) == 10
    for row in rows.values():
        assert row.real == pytest.approx(row.predicted)
    assert rows["1", "lift", UP].real == pytest.approx(6.0)
    assert rows["3", "drop", UP].real == 0.0

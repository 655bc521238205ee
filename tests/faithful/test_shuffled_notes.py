"""When the checks with shuffled weights warn."""

from __future__ import annotations

import numpy as np
import pytest

from vtcav_ray.faithful.randomised import WHOLE
from vtcav_ray.faithful.summary import randomised
from vtcav_ray.rows import FaithfulnessRow, RandomisedRow, table_of
from vtcav_ray.scores.choose import CellKey

CONCEPTS = [f"c{i}/object" for i in range(6)]


def found(level: str, turn: float, p: float = 1.0) -> dict[str, FaithfulnessRow]:
    """Return the rows of one level, by measure: z of the run times `turn`, or other numbers if it is 0."""
    z = np.arange(1.0, 7.0)
    again = turn * z if turn else np.array([1.0, -1.0, 1.0, 1.0, -1.0, 1.0])
    scores = {CellKey("lift", "late", c, "random"): {"z": float(v)} for c, v in zip(CONCEPTS, z, strict=True)}
    rows = [
        RandomisedRow(level=level, class_="lift", layer="late", concept=c, z=float(v), p_adjusted=p)
        for c, v in zip(CONCEPTS, again, strict=True)
    ]
    return {row.measure: row for row in randomised(table_of(rows, RandomisedRow), scores, 0.05)}


@pytest.mark.parametrize("turn", [1.0, -1.0])
def test_a_correlation_warns_only_with_all_weights_shuffled(turn: float) -> None:
    whole, top = found(WHOLE, turn), found("after late", turn)
    assert whole["correlation"].value == top["correlation"].value == pytest.approx(turn)
    assert "go along with the run's" in whole["called"].note
    assert top["called"].note == ""


def test_calls_warn_only_with_all_weights_shuffled() -> None:
    whole, top = found(WHOLE, 0.0, p=0.001), found("after late", 0.0, p=0.001)
    assert whole["called"].value == top["called"].value == 6
    assert whole["called"].note == "6 of 6 effects are called although all weights are shuffled."
    assert top["called"].note == ""
    assert found(WHOLE, 0.0)["called"].note == ""

"""Where the concept effect takes a class's gradients."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from vtcav_ray.errors import StageError
from vtcav_ray.scores.inputs import by_class
from vtcav_ray.store.vectors import vector_array


def gradient_table(reference: list[bool], gains: list[float] | None = None) -> pa.Table:
    """Clips a and c are of the class lift, b of drop. Both classes were differentiated at a and b."""
    return pa.table(
        {
            "clip_id": ["a", "a", "b", "b", "c"],
            "video_id": ["va", "va", "vb", "vb", "vc"],
            "class": ["lift", "drop", "lift", "drop", "lift"],
            "reference": reference,
            "gain": [8.0] * 5 if gains is None else gains,
            "margin": [1.0, -3.0, -2.0, 4.0, 5.0],
            "vector": vector_array(np.arange(10, dtype=np.float32).reshape(5, 2)),
        }
    )


OF_CLIP = {"a": "lift", "b": "drop", "c": "lift"}


@pytest.mark.parametrize(
    ("taken_at", "of_lift", "of_drop"),
    [
        ("own", None, None),
        ("reference", [[0, 1], [4, 5]], [[2, 3], [6, 7]]),
        ("all", [[0, 1], [4, 5], [8, 9]], [[2, 3], [6, 7]]),
    ],
)
def test_where_the_effect_takes_its_gradients(
    taken_at: str, of_lift: list[list[int]] | None, of_drop: list[list[int]] | None
) -> None:
    table = gradient_table([True, True, True, True, False])
    drop, lift = by_class(table, OF_CLIP, taken_at)
    assert (drop.name, list(drop.videos), list(lift.videos)) == ("drop", ["vb"], ["va", "vc"])
    assert lift.vectors.tolist() == [[0, 1], [8, 9]]  # the sign counts use the class's own clips
    for found, expected in ((lift, of_lift), (drop, of_drop)):
        assert (found.for_effect is None) == (expected is None)
        if found.for_effect is not None:
            assert found.for_effect[0].tolist() == expected


def test_a_reference_set_without_a_clip_left_is_an_error() -> None:
    with pytest.raises(StageError, match=r"scores\.gradients_at"):
        by_class(gradient_table([False] * 5), OF_CLIP, "reference")


def test_the_gain_and_the_margin_of_each_class() -> None:
    drop, lift = by_class(gradient_table([True, True, True, True, False]), OF_CLIP, "reference")
    assert (lift.gain, lift.margin, drop.gain, drop.margin) == (8.0, 3.0, 8.0, 4.0)


@pytest.mark.parametrize("taken_at", ["own", "reference"])
def test_gradients_are_weighed_where_the_gain_differs_from_clip_to_clip(taken_at: str) -> None:
    table = gradient_table([True, True, True, True, False], gains=[4.0, 4.0, 12.0, 12.0, 20.0])
    _, lift = by_class(table, OF_CLIP, taken_at)
    assert lift.vectors.tolist() == [[0, 1], [8, 9]]  # the sign counts stay
    assert lift.for_effect is not None
    mean, other = (12.0, [20 * 8, 20 * 9]) if taken_at == "own" else (8.0, [12 * 4, 12 * 5])
    assert lift.gain == mean
    assert (lift.for_effect[0] * mean).tolist() == [[0, 4], other]

"""Effects from some of a run's source videos, on vectors with a planted difference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from vtcav_ray.cavs.plan import Pool
from vtcav_ray.faithful.effects import RunClips, among, effects, weighed
from vtcav_ray.faithful.halves import halves
from vtcav_ray.scores.cells import Cell
from vtcav_ray.scores.families import Labels
from vtcav_ray.scores.layer_data import LayerClips, ScoreOptions

OPTIONS = ScoreOptions(bootstrap=50, permutations=400, seed=0)
N, D = 40, 6  # 10 videos with the concept, 30 random ones
UP = "up/spatial"


def planted(shift: float = 4.0, gain: float = 1.0) -> tuple[LayerClips, RunClips]:
    """Return a layer where the concept's clips lie `shift` along axis 0, and so does the gradient of `lift`."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(N, D)).astype(np.float32)
    vectors[:10, 0] += shift
    videos = [f"v{i}" for i in range(N)]
    ids = [f"clip{i}" for i in range(N)]
    pool = Pool(["concept"] * 10 + ["random"] * 30, [UP] * 10 + ["random/spatial"] * 30, ["spatial"] * N, videos)
    none = np.array([], int)
    cell = Cell(UP, "random", "spatial", none, none, np.arange(10), np.arange(10, N), paired=False)
    return (
        LayerClips("late", "m@1", pool, ids, vectors, [gradients("lift", gain), gradients("drop", gain, -1.0)]),
        RunClips(tuple(ids), tuple(videos), {UP: cell}, Labels.of(pool, {})),
    )


def gradients(name: str, gain: float, sign: float = 1.0, videos: Sequence[str] = "abcdefgh"):  # type: ignore[no-untyped-def]
    rows = np.tile(sign * np.eye(D, dtype=np.float32)[0], (len(videos), 1))
    return weighed(name, rows, np.full(len(videos), gain), [f"{name}-{video}" for video in videos])


def test_the_effect_is_the_shift_along_the_gradient_at_the_gain() -> None:
    layer, clips = planted(gain=2.0)
    found = {one.class_: one for one in effects([layer], clips, OPTIONS)}
    shift = layer.vectors_ND[:10].mean(0) - layer.vectors_ND[10:].mean(0)
    assert found["lift"].effect == pytest.approx(2.0 * shift[0], rel=1e-5)
    assert found["drop"].effect == pytest.approx(-2.0 * shift[0], rel=1e-5)
    assert found["lift"].z > 5
    assert found["lift"].p <= found["lift"].p_adjusted < 0.05


def test_clips_that_are_left_out_change_the_effect_and_an_empty_side_has_none() -> None:
    layer, clips = planted()
    kept = np.ones(N, bool)
    kept[5:10] = False
    (found, _) = effects([layer], among(clips, kept), OPTIONS)
    shift = layer.vectors_ND[:5].mean(0) - layer.vectors_ND[10:].mean(0)
    assert found.effect == pytest.approx(shift[0], rel=1e-5)
    assert effects([layer], among(clips, np.arange(N) >= 10), OPTIONS) == []


def test_both_halves_call_a_planted_effect_and_share_no_video() -> None:
    layer, clips = planted(shift=6.0)
    rows = halves([layer], clips, OPTIONS, alpha=0.05, splits=3)
    assert {(row.split, row.class_) for row in rows} == {
        (split, name) for split in range(3) for name in ("lift", "drop")
    }
    for row in rows:
        sign = 1 if row.class_ == "lift" else -1
        assert (row.first_called, row.second_called) == (sign, sign)
        assert sign * row.first == pytest.approx(6.0, abs=2)
        assert row.first != row.second
    assert rows == halves([layer], clips, OPTIONS, alpha=0.05, splits=3)


def test_without_an_effect_a_half_calls_nothing_at_a_strict_alpha() -> None:
    layer, clips = planted(shift=0.0)
    rows = halves([layer], clips, OPTIONS, alpha=1e-6, splits=2)
    assert rows
    assert {(row.first_called, row.second_called) for row in rows} == {(0, 0)}


def test_a_half_without_a_class_example_has_no_row() -> None:
    layer, clips = planted()
    alone = LayerClips(
        "late", "m@1", layer.pool, layer.clip_ids, layer.vectors_ND, [gradients("lift", 1.0, videos="a")]
    )
    assert halves([alone], clips, OPTIONS, alpha=0.05, splits=2) == []

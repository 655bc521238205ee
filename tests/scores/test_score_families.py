"""The tests of families, and the correction over all cells, on projections made by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from vtcav_ray.cavs.plan import Pool
from vtcav_ray.rows import EffectTestRow, table_of
from vtcav_ray.scores.cells import Cell
from vtcav_ray.scores.correction import corrected, places
from vtcav_ray.scores.families import (
    NO_LABEL,
    Labels,
    Projections,
    composition,
    family_tests,
    no_contrast_note,
)
from vtcav_ray.scores.layer_data import ClassGradients, LayerClips, ScoreOptions
from vtcav_ray.tcav import (
    adjust,
    concept_effect,
    effect_family,
    holm_over_families,
    paired_concept_effect,
    paired_effect_family,
)

N, M, D = 8, 14, 5
NAMES = [("lift", "early"), ("drop", "early"), ("lift", "late")]
OPTIONS = ScoreOptions(bootstrap=2, permutations=999, seed=0)
NONE = np.array([], np.int64)
POOL = Pool(
    ["concept"] * 2 * N + ["random"] * M,
    ["cup/moving"] * N + ["cup/still"] * N + ["random/moving"] * M,
    ["moving"] * N + ["still"] * N + ["moving"] * M,
    [f"c{i // 2}" for i in range(N)] * 2 + [f"r{i}" for i in range(M)],  # two clips of each concept video
)
AGAINST_RANDOM = Cell("cup/moving", "random", "moving", NONE, NONE, np.arange(N), np.arange(2 * N, 2 * N + M), False)
AGAINST_TWIN = Cell("cup/moving", "cup/still", "moving", NONE, NONE, np.arange(N), np.arange(N, 2 * N), True)


def values(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = rng.gamma(1, size=(2 * N + M, len(NAMES)))
    found[:N] += 0.8
    return found.astype(np.float32)


def projections(values_NC: np.ndarray) -> Projections:
    return Projections(NAMES, values_NC, np.full(len(NAMES), 1e-9), np.ones(len(NAMES)))


def labels(of_video: dict[str, str | None]) -> Labels:
    return Labels.of(POOL, of_video)


TWO_CLASSES = {f"c{i}": "tennis" if i else "squash" for i in range(4)} | {
    f"r{i}": "tennis" if i < 5 else "golf" for i in range(M)
}


def test_a_family_is_tested_with_its_labels_and_videos() -> None:
    found = family_tests(AGAINST_RANDOM, projections(values()), POOL, labels(TWO_CLASSES), OPTIONS)
    rows = np.r_[:N, 2 * N : 2 * N + M]
    videos = np.array(POOL.video_id)[rows]
    strata = [TWO_CLASSES[video] for video in videos]
    one = effect_family(values()[:N], values()[2 * N :], groups=videos, strata=strata, permutations=999)
    assert [(row.class_, row.layer) for row in found] == NAMES
    for column, figures in (
        ("p", one.p),
        ("p_symmetric", one.p_symmetric),
        ("p_adjusted", one.p_adjusted),
        ("spread_ratio", one.spread_ratio),
        ("effect_within", one.effect_within),
        ("p_within", one.p_within),
        ("p_within_adjusted", one.p_within_adjusted),
        ("between_share", one.between_share),
        ("effect_unit", one.null_unit),
    ):
        assert [getattr(row, column) for row in found] == pytest.approx(list(figures), nan_ok=True), column
    assert np.array_equal([row.effect_counts for row in found], one.null_counts)
    assert all("can't be told apart from the class squash" in row.note for row in found)
    cell = concept_effect(
        np.ones((2, 1)), values()[:N, :1], values()[2 * N :, :1], groups=videos, permutations=999, bootstrap=2
    )
    assert found[0].p == pytest.approx(cell.p)


def test_twins_share_their_label_so_their_whole_effect_is_within() -> None:
    found = family_tests(AGAINST_TWIN, projections(values()), POOL, labels(TWO_CLASSES), OPTIONS)
    difference, videos = values()[:N] - values()[N : 2 * N], POOL.video_id[:N]
    one = paired_effect_family(difference, groups=videos, permutations=999)
    assert [row.p for row in found] == pytest.approx(list(one.p))
    assert [row.p_adjusted for row in found] == pytest.approx(list(one.p_adjusted))
    for row, effect, unit in zip(found, one.effect, one.null_unit, strict=True):
        assert (row.p_within, row.p_within_adjusted) == (row.p, row.p_adjusted)
        assert row.effect_within == pytest.approx(effect)
        assert row.between_share == 0 if abs(effect) > unit else np.isnan(row.between_share)
    cell = paired_concept_effect(
        np.ones((2, 1)), values()[:N, :1], values()[N : 2 * N, :1], groups=videos, permutations=999, bootstrap=2
    )
    assert found[0].p == pytest.approx(cell.p)


def test_without_any_label_there_is_no_split() -> None:
    found = family_tests(AGAINST_RANDOM, projections(values()), POOL, labels({}), OPTIONS)
    assert np.isnan([(row.effect_within, row.p_within, row.between_share) for row in found]).all()
    assert np.isfinite([row.p for row in found]).all()
    assert not any("told apart" in row.note for row in found)
    some = labels({"c0": "tennis", "r0": "tennis"})
    assert some.of_rows[1] == "tennis"
    assert some.of_rows[2] == NO_LABEL
    assert np.isfinite(
        [row.p_within for row in family_tests(AGAINST_RANDOM, projections(values()), POOL, some, OPTIONS)]
    ).all()


def test_a_cell_that_is_flat_up_to_rounding_has_no_test_and_costs_the_others_nothing() -> None:
    flat = values()
    flat[:, 1] = 3 + 1e-7 * np.random.default_rng(0).normal(size=len(flat))
    wide = Projections(NAMES, flat, np.array([0.0, 1e-5, 0.0]), np.ones(3))
    found = family_tests(AGAINST_RANDOM, wide, POOL, labels({}), OPTIONS)
    assert np.isnan(found[1].p)
    assert sum(found[1].effect_counts) == 0
    rest = family_tests(
        AGAINST_RANDOM, Projections(NAMES[::2], flat[:, ::2], np.zeros(2), np.ones(2)), POOL, labels({}), OPTIONS
    )
    assert [found[0].p_adjusted, found[2].p_adjusted] == [row.p_adjusted for row in rest]


def test_unequal_spreads_are_noted_with_the_other_p() -> None:
    wide = values()
    wide[:N, 0] = 4 * np.random.default_rng(1).normal(size=N).repeat(2)[:N]
    wide[2 * N :, 0] = np.random.default_rng(2).normal(size=M)
    found = family_tests(AGAINST_RANDOM, projections(wide), POOL, labels({}), OPTIONS)
    assert found[0].spread_ratio > 2
    assert f"differ by a factor of {found[0].spread_ratio:.1f}" in found[0].note
    assert f"p is {found[0].p_symmetric:.2g}." in found[0].note
    assert all(bool(row.note) == (row.spread_ratio > 2) for row in found)


def test_an_empty_other_side_has_no_tests() -> None:
    empty = Cell("cup/moving", "rest of moving", "moving", NONE, NONE, np.arange(N), NONE, False)
    assert family_tests(empty, projections(values()), POOL, labels({}), OPTIONS) == []


def test_composition_counts_source_videos() -> None:
    rows = {row.label: row for row in composition(AGAINST_RANDOM, POOL, labels(TWO_CLASSES))}
    assert {label: (r.n_concept, r.n_random, r.no_contrast) for label, r in rows.items()} == {
        "golf": (0, 9, False),
        "squash": (1, 0, True),
        "tennis": (3, 5, False),
    }
    assert rows["golf"].concept == "cup/moving"


def test_what_cannot_be_told_apart_is_named() -> None:
    assert no_contrast_note(()) == ""
    assert "from the class tennis: " in no_contrast_note(("tennis",))
    assert "from the classes a, b, c and 2 more: " in no_contrast_note(("a", "b", "c", "d", "e"))
    assert "from the class a and videos without a label: " in no_contrast_note(("a", NO_LABEL))
    assert "from videos without a label: " in no_contrast_note((NO_LABEL,))


def test_projections_are_those_of_the_mean_gradients_of_videos() -> None:
    rng = np.random.default_rng(0)
    layers = []
    for name in ("early", "late"):
        gradients = rng.normal(size=(4, D)).astype(np.float32)
        own = ClassGradients("lift", gradients, ["a", "a", "b", "c"])
        other = ClassGradients("drop", gradients[:1], ["a"], for_effect=(gradients[1:], ["x", "y", "y"]))
        vectors = (rng.normal(size=(2 * N + M, D)) + 100).astype(np.float32)
        layers.append(LayerClips(name, "m", POOL, [str(i) for i in range(2 * N + M)], vectors, [own, other]))
    found = Projections.of(layers)
    assert list(found.cells) == [("lift", "early"), ("drop", "early"), ("lift", "late"), ("drop", "late")]
    means = []
    for g in (layer.classes[0].vectors for layer in layers):
        means += [(g[:2].mean(0) + g[2] + g[3]) / 3, (g[1] + (g[2] + g[3]) / 2) / 2]
    for c, mean in enumerate(means):
        layer = layers[c // 2]
        centred = layer.vectors_ND.astype(np.float64) - layer.vectors_ND.astype(np.float64).mean(0)
        assert found.values_NC[:, c] == pytest.approx(centred @ mean, abs=1e-4)
        assert found.negligible_C[c] == pytest.approx(1e-6 * np.linalg.norm(mean) * 100 * np.sqrt(D), rel=0.01)


def test_step_down_corrects_families_and_the_other_names_each_cell() -> None:
    rng = np.random.default_rng(0)
    p, adjusted = rng.random(9) / 10, rng.random(9) / 5
    adjusted[4] = p[4] = np.nan
    family = np.array([7, 3, 7, 3, 3, 1, 1, 7, 1])
    q = corrected(p, adjusted, family, "step_down")
    by_hand = holm_over_families([adjusted[family == k] for k in (1, 3, 7)])
    for k, one in zip((1, 3, 7), by_hand, strict=True):
        assert np.array_equal(q[family == k], one, equal_nan=True)
    for name in ("holm", "bh", "none"):
        assert np.array_equal(corrected(p, adjusted, family, name), adjust(p, name), equal_nan=True)


def test_cells_find_their_tests_whatever_the_order() -> None:
    keys = [("a", "early", "x", "random"), ("a", "late", "x", "random"), ("b", "early", "x", "y"), ("", "", "", "")]
    columns = [list(column) for column in zip(*keys, strict=True)]
    tests = pa.table(columns, names=["class", "layer", "concept", "against"])
    cells = tests.take(pa.array([2, 0, 0]))
    unknown = cells.set_column(0, "class", pa.array(["b", "a", "z"]))
    assert places(cells, tests).tolist() == [2, 0, 0]
    assert places(unknown, tests).tolist() == [2, 0, 3]
    nothing = table_of([], EffectTestRow)
    assert places(cells, pa.concat_tables([nothing.select(tests.column_names), tests.slice(3)])).tolist() == [0, 0, 0]


def test_a_composition_of_many_labels_counts_the_rare_ones_together() -> None:
    """Kinetics has 400 labels; a concept has videos of a few of them."""
    own, random = 40, 400
    pool = Pool(
        ["concept"] * own + ["random"] * random,
        ["cup/still"] * own + ["random/still"] * random,
        ["still"] * (own + random),
        [f"c{i}" for i in range(own)] + [f"r{i}" for i in range(random)],
    )
    of_video = {f"c{i}": f"class {i // 2:03d}" if i < 30 else f"rare {i}" for i in range(own)}
    of_video |= {f"r{i}": f"class {i:03d}" for i in range(random)}
    cell = Cell("cup/still", "random", "still", NONE, NONE, np.arange(own), np.arange(own, own + random), False)
    rows = composition(cell, pool, Labels.of(pool, of_video))
    assert [row.label for row in rows[:15]] == [f"class {i:03d}" for i in range(15)]
    assert len(rows) == 21
    last = rows[-1]
    assert (last.label, last.n_concept, last.n_random, last.no_contrast) == ("390 other labels", 5, 385, True)
    assert sum(row.n_concept for row in rows) == own
    assert sum(row.n_random for row in rows) == random
    assert [row.no_contrast for row in rows[:20]] == [False] * 15 + [True] * 5

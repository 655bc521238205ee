"""The cells of a layer, on vectors with a planted answer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vtcav_ray.cavs.chance import comparisons
from vtcav_ray.cavs.layer_cavs import by_chance
from vtcav_ray.cavs.layer_pool import LayerPool
from vtcav_ray.cavs.plan import CavJob, Pool, plan_cavs
from vtcav_ray.cavs.train import train_cavs
from vtcav_ray.config import CavsConfig
from vtcav_ray.rows import EffectTestRow, NullRow, ScoreRow
from vtcav_ray.scores.cells import find_cells
from vtcav_ray.scores.families import Labels, Projections, family_tests
from vtcav_ray.scores.layer import score_layer
from vtcav_ray.scores.layer_data import ClassGradients, LayerData, ScoreOptions
from vtcav_ray.tcav.null_histograms import EFFECT_BINS, EFFECT_REACH, SCORE_BINS

D = 12
OPTIONS = ScoreOptions(bootstrap=200, permutations=999, seed=0)
KINDS = ("spatial", "spatiotemporal", "frozen")


def planted(seed: int = 0, *, same_gradient: bool = False) -> LayerData:
    """Make noise in which `cup/spatiotemporal` lies along axis 0, which raises `lift` and lowers `drop`."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[str, str, str, str, str]] = []
    vectors = []
    shared_12D = rng.normal(size=(12, D))
    shared_12D -= shared_12D.mean(axis=0)  # the truth holds in the sample, too: what the twins share is no concept
    for i, shared in enumerate(shared_12D):
        for kind in KINDS:
            rows.append(("concept", f"cup/{kind}", kind, f"c{i}", f"concept/cup/{kind}/c{i}#1@0"))
            vectors.append(
                shared + 0.3 * rng.normal(size=D) + (2.0 if kind == "spatiotemporal" else 0.0) * np.eye(D)[0]
            )
    for kind in KINDS:
        for i in range(60):
            rows.append(("random", f"random/{kind}", kind, f"r{i}", f"random/{kind}/r{i}"))
            vectors.append(rng.normal(size=D))
    *columns, clip_ids = (list(c) for c in zip(*rows, strict=True))
    pool = Pool(*columns)
    jobs = plan_cavs(pool, 10, ("groups", "pairs"), seed=0).jobs
    vectors_ND = np.array(vectors, np.float32)
    cavs = train_cavs(
        vectors_ND, [j.rows().positive for j in jobs], [j.rows().negative for j in jobs], groups=pool.video_id
    )
    noise = 0.0 if same_gradient else 0.3
    classes = [
        ClassGradients(
            name,
            (sign * np.eye(D)[0] + noise * rng.normal(size=(15, D))).astype(np.float32),
            [f"k{i}" for i in range(15)],
        )
        for name, sign in (("drop", -1.0), ("lift", 1.0))
    ]
    layer = LayerPool(vectors_ND, pool.video_id, pool.learnable())
    return LayerData(
        "late", "model@1", pool, clip_ids, vectors_ND, classes, jobs, cavs.vectors,
        cavs.held_out_accuracy.astype(float),
        chance={(c.concept, c.against): by_chance(layer, c, CavsConfig(), 0) for c in comparisons(pool, jobs)},
    )  # fmt: skip


def effect_tests(data: LayerData) -> list[EffectTestRow]:
    cells, projections = find_cells(data.pool, data.clip_ids, data.jobs), Projections.of([data])
    labels = Labels.of(data.pool, {})
    return [row for cell in cells for row in family_tests(cell, projections, data.pool, labels, OPTIONS)]


def key_of(row: ScoreRow | NullRow | EffectTestRow) -> tuple[str, str, str]:
    return row.class_, row.concept, row.against


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, str, str], ScoreRow]:
    p = {key_of(test): test.p for test in effect_tests(planted())}
    return {key_of(r): dataclasses.replace(r, p=p[key_of(r)]) for r in score_layer(planted(), OPTIONS).cells}


@pytest.mark.slow
def test_the_planted_concept_is_found_with_its_sign(rows: dict[tuple[str, str, str], ScoreRow]) -> None:
    lift, drop = rows["lift", "cup/spatiotemporal", "random"], rows["drop", "cup/spatiotemporal", "random"]
    assert lift.effect == pytest.approx(2.0, abs=0.7)
    assert lift.p <= 0.005
    assert lift.tcav_score > 0.9
    assert lift.learnable
    assert drop.effect == pytest.approx(-2.0, abs=0.7)
    assert drop.p <= 0.005
    assert drop.tcav_score < 0.1


@pytest.mark.slow
def test_the_effect_uses_the_reference_gradients_and_the_sign_counts_do_not(
    rows: dict[tuple[str, str, str], ScoreRow],
) -> None:
    """The model is saturated at its own class: there the gradient vanishes, elsewhere it is as planted."""
    data = planted()
    drop, lift = data.classes
    flat = (0.01 * lift.vectors, lift.videos)
    there = (np.concatenate((flat[0], lift.vectors)), [*lift.videos, *(f"other {v}" for v in lift.videos)])
    one = dataclasses.replace(lift, vectors=flat[0])
    classes = [drop, dataclasses.replace(one, for_effect=there)]
    found = {(r.class_, r.concept, r.against): r
             for r in score_layer(dataclasses.replace(data, classes=classes), OPTIONS).cells}  # fmt: skip
    key = ("lift", "cup/spatiotemporal", "random")
    assert found[key].effect == pytest.approx(rows[key].effect * 1.01 / 2, rel=1e-4)
    assert found[key].tcav_score == rows[key].tcav_score
    assert found[key].n == rows[key].n
    other = ("drop", "cup/spatiotemporal", "random")
    assert found[other].effect == pytest.approx(rows[other].effect, rel=1e-6)
    tests = {key_of(row): row for row in effect_tests(dataclasses.replace(data, classes=classes))}
    before = {key_of(row): row for row in effect_tests(data)}
    assert tests[key].effect_unit == pytest.approx(before[key].effect_unit * 1.01 / 2, rel=1e-4)
    assert tests[other].effect_unit == pytest.approx(before[other].effect_unit, rel=1e-6)


@pytest.mark.slow
def test_what_is_not_there_is_not_found(rows: dict[tuple[str, str, str], ScoreRow]) -> None:
    for name in ("lift", "drop"):
        for concept in ("cup/spatial", "cup/frozen"):
            cell = rows[name, concept, "random"]
            assert cell.p > 0.01
            assert cell.ci_low < 0 < cell.ci_high


@pytest.mark.slow
def test_a_pair_is_told_apart_by_its_twins(rows: dict[tuple[str, str, str], ScoreRow]) -> None:
    cell = rows["lift", "cup/spatiotemporal", "cup/frozen"]
    assert cell.effect == pytest.approx(2.0, abs=0.3)
    assert cell.p <= 0.005
    # What the twins share cancels, so the pair is more certain than the comparison with random clips.
    assert abs(cell.z) > abs(rows["lift", "cup/spatiotemporal", "random"].z)


def test_every_figure_is_in_its_range(rows: dict[tuple[str, str, str], ScoreRow]) -> None:
    assert len(rows) == 2 * 5  # classes x (3 concepts against random, 2 pairs)
    for row in rows.values():
        assert 0 <= row.tcav_ci_low <= row.tcav_score <= row.tcav_ci_high <= 1
        assert row.ci_low < row.effect < row.ci_high
        assert 0 < row.tcav_p <= 1
        assert 0 < row.p <= 1
        assert not row.degenerate
        assert (row.n, row.R) == (15, 10)


@pytest.mark.slow
def test_equal_gradients_are_marked_and_have_no_test_of_signs() -> None:
    for row in score_layer(planted(same_gradient=True), OPTIONS).cells:
        assert row.degenerate
        assert np.isnan(row.tcav_p)
        assert "same for every clip" in row.note
        assert row.tcav_score == pytest.approx(round(row.tcav_score * row.R) / row.R)


@pytest.mark.slow
def test_sensitivities_are_kept_for_each_video() -> None:
    sensitivities = score_layer(planted(), OPTIONS).sensitivities
    lift = [s for s in sensitivities if (s.class_, s.concept) == ("lift", "cup/spatiotemporal")]
    assert {s.video_id for s in lift} == {f"k{i}" for i in range(15)}
    assert np.mean([s.sensitivity for s in lift]) > 0


@pytest.mark.slow
def test_the_nulls_are_those_that_the_tests_counted() -> None:
    scored = score_layer(planted(), OPTIONS)
    tests = {key_of(row): row for row in effect_tests(planted())}
    keys = [[(r.class_, r.layer, r.concept, r.against) for r in of] for of in (scored.cells, scored.nulls)]
    assert keys[0] == keys[1]
    middle = (np.arange(EFFECT_BINS) + 0.5) * 2 * EFFECT_REACH / EFFECT_BINS - EFFECT_REACH
    half = EFFECT_REACH / EFFECT_BINS
    for cell, null in zip(scored.cells, scored.nulls, strict=True):
        test = tests[key_of(cell)]
        counts = np.array(test.effect_counts)
        assert counts.sum() == OPTIONS.permutations
        observed = cell.effect / test.effect_unit
        # p counts the smaller tail. It lies between the bins that are wholly in it and those that may be partly.
        wholly, partly = (
            min(counts[sign * middle + side * half > sign * observed].sum() for sign in (-1, 1)) for side in (-1, 1)
        )
        tail = test.p * (OPTIONS.permutations + 1) / 2
        assert wholly + 1 <= tail <= partly + 1 or abs(observed) > EFFECT_REACH
        assert sum(null.score_counts) == 45  # the pairs of 10 random sets
        mean = np.average((np.arange(SCORE_BINS) + 0.5) / SCORE_BINS, weights=null.score_counts)
        assert mean == pytest.approx(cell.tcav_null_mean, abs=0.5 / SCORE_BINS)


@pytest.mark.slow
def test_twins_are_matched_by_track_and_frame_whatever_their_order() -> None:
    data = planted()
    shuffled = np.random.default_rng(3).permutation(len(data.clip_ids))
    pool = Pool(
        *(
            [column[i] for i in shuffled]
            for column in (data.pool.set, data.pool.name, data.pool.kind, data.pool.video_id)
        )
    )
    ids = [data.clip_ids[i] for i in shuffled]
    jobs: list[CavJob] = plan_cavs(pool, 3, ("pairs",), seed=0).jobs
    for cell in find_cells(pool, ids, jobs):
        if cell.paired:
            pairs = zip(cell.concept_rows, cell.other_rows, strict=True)
            assert all(ids[i].split("/")[-1] == ids[j].split("/")[-1] for i, j in pairs)
            assert len(cell.concept_rows) == 12

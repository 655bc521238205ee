"""Concepts whose negatives are their partners: the test keeps its level, and finds what the unpaired one misses."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from scipy.stats import binom

from vtcav_ray.cavs.chance import comparisons
from vtcav_ray.cavs.layer_cavs import train_jobs
from vtcav_ray.cavs.layer_pool import LayerPool
from vtcav_ray.cavs.paired import common, swapped
from vtcav_ray.cavs.plan import RANDOM, CavJob, Pool, plan_cavs
from vtcav_ray.clips.pools import IN_PAIRS, own_pool, pair_pool
from vtcav_ray.config import CavsConfig
from vtcav_ray.rows import EffectTestRow, ScoreRow
from vtcav_ray.scores.cells import Cell, find_cells
from vtcav_ray.scores.families import Labels, Projections, family_tests
from vtcav_ray.scores.layer import score_layer
from vtcav_ray.scores.layer_data import ClassGradients, LayerData, ScoreOptions
from vtcav_ray.tcav import paired_effect_family

D, N, R = 16, 20, 10  # numbers of a vector, source videos, CAVs
OPTIONS = ScoreOptions(bootstrap=200, permutations=999, seed=0)


@functools.cache
def named(videos: int, clips: int = 1, *, paired: bool = True) -> tuple[Pool, list[str]]:
    """Return the pool of a concept and its negatives, with `clips` pairs of each source video, and the clip ids."""
    pool = pair_pool("mark", "given") if paired else own_pool("mark", "given")
    rows = []
    for side, role, name in (("concept/mark/given", "concept", "mark/given"), (pool, RANDOM, pool)):
        for video in range(videos):
            source = f"s{video}" if paired or role == "concept" else f"r{video}"
            rows += [(role, name, "given", source, f"{side}/{video}#{c}") for c in range(clips)]
    *columns, clip_ids = (list(column) for column in zip(*rows, strict=True))
    return Pool(*columns), clip_ids


def vectors_of(rng: np.random.Generator, videos: int, clips: int, shift: np.ndarray) -> np.ndarray:
    """Draw clips and their partners: they share what is in the video, and differ by noise, and by the concept."""
    shared = rng.gamma(1, 3.0, size=(videos, 1, D)) + rng.normal(size=(videos, clips, D))
    own, other = (shared + 0.5 * rng.normal(size=(videos, clips, D)) for _ in range(2))
    return np.concatenate([own.reshape(-1, D) + shift, other.reshape(-1, D)]).astype(np.float32)


def the_cell(names: Pool, clip_ids: list[str], jobs: list[CavJob]) -> Cell:
    (cell,) = find_cells(names, clip_ids, jobs)
    return cell


def answer(names: Pool, clip_ids: list[str], vectors: np.ndarray, seed: int) -> EffectTestRow:
    cell = the_cell(names, clip_ids, plan_cavs(names, 2, (), 0).jobs)
    mean = np.ones(D) / np.sqrt(D)
    projected = Projections([("serve", "late")], (vectors @ mean)[:, None].astype(np.float32), np.zeros(1), np.ones(1))
    return family_tests(cell, projected, names, Labels.of(names, {}), ScoreOptions(2, 999, seed))[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("videos", "clips"), [(20, 3), *[pytest.param(n, 1, marks=pytest.mark.full) for n in (12, 20, 37)]]
)
def test_without_a_difference_it_is_called_in_one_case_of_twenty(videos: int, clips: int) -> None:
    names, clip_ids = named(videos, clips)
    worlds = 1000
    p = np.array([
        answer(names, clip_ids, vectors_of(np.random.default_rng([7, w]), videos, clips, np.zeros(D)), w).p
        for w in range(worlds)
    ])  # fmt: skip
    low, high = binom.ppf([0.0005, 0.9995], worlds, 0.05)
    assert low <= (p <= 0.05).sum() <= high


@pytest.mark.slow
def test_pairs_find_what_other_clips_hide() -> None:
    """The clips of different videos differ in far more than the mark."""
    shift = 0.5 * np.ones(D) / np.sqrt(D)
    p: dict[bool, list[float]] = {True: [], False: []}
    for world in range(40):
        vectors = vectors_of(np.random.default_rng(world), 2 * N, 1, shift)
        paired = vectors.reshape(2, 2 * N, D)
        # The same clips as a person would collect them: every second one with the mark, the others without it.
        apart = np.concatenate([paired[0, :N], paired[1, N:]])
        p[True].append(answer(*named(2 * N), vectors, world).p)
        p[False].append(answer(*named(N, paired=False), apart, world).p)
    assert np.mean(np.array(p[True]) <= 0.01) > 0.9
    assert np.mean(np.array(p[False]) <= 0.05) < 0.25


def layer(seed: int, shift: float, *, lost: tuple[int, ...] = (), solver: str = "logistic") -> LayerData:
    """Return a layer in which the mark moves clips along axis 0, which raises `serve`; some rows are lost."""
    names, clip_ids = named(N)
    rng = np.random.default_rng(seed)
    vectors = vectors_of(rng, N, 1, shift * np.eye(D)[0])
    keep = [i for i in range(len(clip_ids)) if i not in lost]
    columns = ([getattr(names, c)[i] for i in keep] for c in ("set", "name", "kind", "video_id"))
    names, clip_ids, vectors = Pool(*columns), [clip_ids[i] for i in keep], vectors[keep]
    jobs = plan_cavs(names, R, ("groups", "pairs"), seed=0).jobs
    of_layer = LayerPool(vectors, names.video_id, names.learnable())
    trained = train_jobs(of_layer, jobs, CavsConfig(random_sets=R, solver=solver), 0)
    serve = (np.eye(D)[0] + 0.2 * rng.normal(size=(15, D))).astype(np.float32)
    return LayerData(
        "late", "model@1", names, clip_ids, vectors, [ClassGradients("serve", serve, [f"k{i}" for i in range(15)])],
        jobs, np.concatenate([one.vectors for one in trained]),
        np.concatenate([one.held_out_accuracy for one in trained]).astype(float),
    )  # fmt: skip


def score_of(data: LayerData, options: ScoreOptions = OPTIONS) -> ScoreRow:
    (row,) = score_layer(data, options).cells
    return row


def test_the_effect_is_the_mean_difference_of_pairs_and_the_table_says_so() -> None:
    data = layer(0, 1.0)
    row = score_of(data)
    own, other = data.vectors_ND[:N], data.vectors_ND[N:]
    gradient = data.classes[0].vectors.mean(axis=0)
    assert (row.concept, row.against, row.n_concept, row.n_random) == ("mark/given", "random", N, N)
    assert row.effect == pytest.approx(float(((own - other) @ gradient).mean()), rel=1e-5)
    assert row.ci_low < row.effect < row.ci_high
    assert row.tcav_score > 0.9
    assert row.tcav_p <= 1 / (R + 1) + 1e-9
    assert IN_PAIRS[1:] in row.note
    cell = the_cell(data.pool, list(data.clip_ids), list(data.jobs))
    values = (data.vectors_ND @ gradient)[:, None].astype(np.float32)
    projected = Projections([("serve", "late")], values, np.zeros(1), np.ones(1))
    (test,) = family_tests(cell, projected, data.pool, Labels.of(data.pool, {}), OPTIONS)
    expected = paired_effect_family((own - other) @ gradient[:, None], permutations=999, seed=0)
    assert test.p == pytest.approx(float(expected.p[0]))
    assert test.p < 0.01
    assert test.effect_within == pytest.approx(row.effect, rel=1e-4), "both clips of a pair have one label"


def test_a_pair_that_lost_a_clip_is_in_no_figure() -> None:
    data = layer(0, 1.0, lost=(2, N + 5))
    row = score_of(data)
    assert (row.n_concept, row.n_random) == (N - 2, N - 2)
    for job in data.jobs:
        sides = [{data.pool.video_id[i] for i in side} for side in job.rows()]
        assert sides[0] == sides[1] == {f"s{i}" for i in range(N) if i not in (2, 5)}


def test_every_null_cav_has_both_clips_of_each_pair_on_different_sides_in_another_way() -> None:
    data = layer(0, 0.0)
    own, null = ([job for job in data.jobs if job.is_null is of_null] for of_null in (False, True))
    assert len(own) == len(null) == R
    observed = set(own[0].rows().positive.tolist())
    ways = []
    for job in null:
        positive, negative = (side.tolist() for side in job.rows())
        assert len(positive) == len(negative) == N
        assert sorted(positive + negative) == list(range(2 * N))
        ways.append(len(observed & set(positive)))
        again = job.rows()
        assert again.positive.tolist() == positive, "the same at each call"
    assert min(ways) > 0
    assert max(ways) < N
    assert len({tuple(job.rows().positive) for job in null}) == R


def test_videos_on_one_side_alone_are_not_swapped() -> None:
    own, other = ({v: np.array([i]) for i, v in enumerate(names)} for names in ("abc", "bcd"))
    found = swapped(own, other, np.random.default_rng(0))
    assert (list(found.own), list(found.other)) == (list("abc"), list("bcd"))
    assert found.own["a"] is own["a"]
    assert list(common(own, other).own) == list(common(own, other).other) == ["b", "c"]


def test_too_few_pairs_are_left_out_with_a_sentence() -> None:
    names, _ = named(1)
    plan = plan_cavs(names, R, (), 0)
    assert not plan.jobs
    assert plan.warnings == ["mark/given: pairs of 1 source videos; a CAV needs at least 2. It is left out."]


def test_learnable_compares_with_swapped_pairs() -> None:
    names, _ = named(N)
    (one,) = comparisons(names, plan_cavs(names, R, (), 0).jobs)
    assert one.paired
    drawn = one.draws(0, 3, 2)
    assert all(sorted([*both.positive, *both.negative]) == list(range(2 * N)) for both in drawn.sides)


@pytest.mark.full
def test_the_sign_count_of_pairs_without_a_difference_is_called_in_one_case_of_twenty_at_most() -> None:
    worlds, called = 150, 0
    for world in range(worlds):
        p = score_of(layer(world, 0.0, solver="pattern"), ScoreOptions(2, 100, 0)).tcav_p
        assert p is not None
        called += p <= 0.1
    assert called <= binom.ppf(0.9995, worlds, 0.1)
    assert score_of(layer(0, 2.0)).tcav_p <= 0.1

"""What a concept's accuracy is compared with: a null concept is called learnable in 5 % of cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from vtcav_ray.cavs.chance import DRAWS, RUNS, Comparison, comparisons
from vtcav_ray.cavs.layer_cavs import train_sides
from vtcav_ray.cavs.layer_pool import LayerPool
from vtcav_ray.cavs.plan import Pool, plan_cavs
from vtcav_ray.config import CavsConfig
from vtcav_ray.tcav.diagnostics import Learnable, learnability

D = 16


def pool(concepts: dict[str, list[str]], randoms: list[str]) -> Pool:
    rows = [("concept", f"{name}/spatial", "spatial", v) for name, videos in concepts.items() for v in videos]
    rows += [("random", "random/spatial", "spatial", v) for v in randoms]
    return Pool(*(list(column) for column in zip(*rows, strict=True)))


def numbered(letter: str, count: int) -> list[str]:
    return [f"{letter}{i}" for i in range(count)]


def gate(one: Comparison, vectors: np.ndarray, videos: list[str], seed: int, draws: int, runs: int) -> Learnable:
    drawn = one.draws(seed, draws, runs)
    layer = LayerPool(vectors, videos, np.arange(len(vectors)))
    trained = train_sides(layer, drawn.sides, drawn.splits, CavsConfig(solver="pattern"), seed)
    means = drawn.means(np.concatenate([part.held_out_accuracy for part in trained]))
    return learnability(float(means[0]), means[1:])


def null_rate(clips: Pool, relative: tuple[str, ...], wanted: tuple[str, str], worlds: int) -> tuple[int, int]:
    """Count the null worlds, with no difference between any clips, in which the comparison is learnable."""
    jobs = plan_cavs(clips, 2, relative, seed=0).jobs
    (one,) = [c for c in comparisons(clips, jobs) if (c.concept, c.against) == wanted]
    rng = np.random.default_rng(1)
    found = 0
    for world in range(worlds):
        vectors = rng.normal(size=(len(clips.video_id), D)).astype(np.float32)
        found += gate(one, vectors, list(clips.video_id), world, 19, 4).learnable
    return found, worlds


@pytest.mark.full
@pytest.mark.parametrize(
    ("clips", "relative", "wanted"),
    [
        # 25 videos have 3 disjoint sets of 8: a rank among these alone could never be below 1/4.
        (pool({"a": numbered("c", 8)}, numbered("r", 25)), (), ("a/spatial", "random")),
        (
            pool({"a": numbered("c", 8), "b": numbered("d", 7), "c": numbered("e", 7)}, numbered("r", 25)),
            ("groups",),
            ("a/spatial", "rest of spatial"),
        ),
    ],
)
def test_a_concept_of_random_clips_is_learnable_in_one_case_of_twenty(
    clips: Pool, relative: tuple[str, ...], wanted: tuple[str, str]
) -> None:
    found, worlds = null_rate(clips, relative, wanted, 600)
    low, high = binom.ppf([0.0005, 0.9995], worlds, 0.05)
    # Accuracies of few clips are often equal, and ties count against the concept.
    assert found <= high
    assert found >= 0.5 * low


def test_what_differs_is_learnable() -> None:
    clips = pool({"a": numbered("c", 8)}, numbered("r", 25))
    (one,) = comparisons(clips, plan_cavs(clips, 2, (), seed=0).jobs)
    vectors = np.random.default_rng(0).normal(size=(33, D)).astype(np.float32)
    vectors[:8, 0] += 6
    found = gate(one, vectors, list(clips.video_id), 0, DRAWS, RUNS)
    assert found.learnable
    assert found.p == pytest.approx(1 / (DRAWS + 1))


def test_stand_ins_share_no_video_with_their_random_sets() -> None:
    clips = pool({"a": numbered("c", 5), "b": numbered("c", 3)}, numbered("r", 12))
    one = comparisons(clips, plan_cavs(clips, 2, (), seed=0).jobs)[0]
    drawn = one.draws(0)
    assert len(drawn.sides) == (DRAWS + 1) * RUNS
    videos = np.array(clips.video_id)
    stand_ins = set()
    for place, (positive, negative) in enumerate(drawn.sides):
        own, other = set(videos[positive]), set(videos[negative])
        assert len(own) == len(other) == 5
        assert not own & other
        if place % (DRAWS + 1) == 0:
            assert own == set(numbered("c", 5))
        else:
            stand_ins |= own
    assert stand_ins == {*numbered("c", 5), *numbered("r", 12)}
    again = one.draws(0)
    assert all(np.array_equal(a.positive, b.positive) for a, b in zip(drawn.sides, again.sides, strict=True))
    assert not np.array_equal(one.draws(1).sides[1].positive, drawn.sides[1].positive)


def test_twins_are_swapped_video_by_video() -> None:
    names = numbered("c", 4)
    rows = [("concept", f"a/{kind}", kind, v) for kind in ("spatiotemporal", "frozen") for v in names]
    rows += [("random", f"random/{kind}", kind, v) for kind in ("spatiotemporal", "frozen") for v in numbered("r", 8)]
    clips = Pool(*(list(column) for column in zip(*rows, strict=True)))
    jobs = plan_cavs(clips, 2, ("pairs",), seed=0).jobs
    (one,) = [c for c in comparisons(clips, jobs) if c.paired]
    drawn = one.draws(0)
    videos = np.array(clips.video_id)
    seen = set()
    for positive, negative in drawn.sides:
        assert sorted(videos[positive]) == sorted(videos[negative]) == names
        assert not set(positive) & set(negative)
        seen.add(tuple(sorted(positive)))
    assert len(seen) > 8  # of 16
    assert drawn.splits == [run for run in range(RUNS) for _ in range(DRAWS + 1)]


def test_untrained_draws_have_no_mean() -> None:
    clips = pool({"a": numbered("c", 5)}, numbered("r", 12))
    (one,) = comparisons(clips, plan_cavs(clips, 2, (), seed=0).jobs)
    means = one.draws(0, draws=1, runs=2).means(np.array([0.5, np.nan, 0.7, np.nan]))
    assert means[0] == pytest.approx(0.6)
    assert math.isnan(means[1])

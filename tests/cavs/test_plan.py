from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vtcav_ray.cavs.plan import RANDOM, Pool, plan_cavs


def pool(concepts: dict[str, list[str]], randoms: dict[str, list[str]]) -> Pool:
    """Make a pool of concepts `<name>/<kind>` and random kinds, each with the source videos of its clips."""
    rows = [("concept", name, name.rsplit("/", 1)[1], v) for name, videos in concepts.items() for v in videos]
    rows += [("random", f"random/{kind}", kind, v) for kind, videos in randoms.items() for v in videos]
    rows.append(("class", "lift", "full", "class video"))
    return Pool(*(list(column) for column in zip(*rows, strict=True)))


def videos(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{i}" for i in range(count)]


CUP = {"cup/spatial": videos("c", 5)}
STILL = {"spatial": videos("r", 40)}


def test_each_concept_faces_r_random_sets_of_its_own_kind_and_size() -> None:
    clips = pool(CUP | {"cup/context": videos("c", 4)}, STILL | {"context": videos("q", 40)})
    plan = plan_cavs(clips, 6, (), seed=0)
    for job in plan.jobs:
        kinds = {clips.kind[i] for i in np.concatenate([job.rows().positive, job.rows().negative])}
        assert kinds == {job.kind}
        assert len(job.rows().negative) == len(job.rows().positive) == job.size
    runs = Counter((j.concept, j.against) for j in plan.jobs if not j.is_null)
    assert runs == {("cup/spatial", RANDOM): 6, ("cup/context", RANDOM): 6}


@pytest.mark.parametrize("clips", [(1, 1, 1, 1, 1), (3, 2, 2, 1, 1)])
def test_sets_have_as_many_clips_a_video_as_the_concept(clips: tuple[int, ...]) -> None:
    """Otherwise the sets' means vary less than the concept's, and the test rejects too often."""
    own = [v for v, count in zip(videos("c", 5), clips, strict=True) for _ in range(count)]
    counts = [1 + i % 4 for i in range(200)]
    others = [v for v, count in zip(videos("r", 200), counts, strict=True) for _ in range(count)]
    pooled = pool({"cup/spatial": own}, {"spatial": others})
    plan = plan_cavs(pooled, 8, (), seed=0)
    assert plan.warnings == []
    for job in plan.jobs:
        for rows in (job.rows().positive, job.rows().negative):
            assert tuple(sorted(Counter(pooled.video_id[i] for i in rows).values(), reverse=True)) == clips
        assert job.profile == clips


def test_concepts_of_one_size_and_different_clips_have_each_their_null() -> None:
    plan = plan_cavs(pool(CUP | {"ball/spatial": [*videos("b", 5)] * 2}, {"spatial": videos("r", 80) * 2}), 8, (), 0)
    null = Counter(j.profile for j in plan.jobs if j.is_null)
    assert null == {(1,) * 5: 28, (2,) * 5: 28}


def test_a_pool_with_too_few_clips_a_video_is_reported() -> None:
    plan = plan_cavs(pool({"cup/spatial": videos("c", 5) * 2}, {"spatial": [*videos("r", 40), "r0"]}), 8, (), seed=0)
    assert [w for w in plan.warnings if "fewer clips" in w and "cup/spatial (98% of the videos)" in w]
    assert {len(j.rows().positive) for j in plan.jobs if j.is_null} == {5, 6}


def test_replaced_videos_keep_the_profile() -> None:
    pooled = pool({"cup/spatial": [*videos("c", 5), "c0"]}, {"spatial": videos("r", 12) * 2})
    for job in plan_cavs(pooled, 8, (), seed=0).jobs:
        assert set(job.rows().positive).isdisjoint(job.rows().negative)
        assert len(job.rows().negative) == 6


def test_random_sets_are_disjoint_while_the_videos_last() -> None:
    clips = pool(CUP, STILL)
    plan = plan_cavs(clips, 8, (), seed=0)
    drawn = [i for j in plan.jobs if not j.is_null for i in j.rows().negative]
    assert len(set(drawn)) == len(drawn) == 40
    assert plan.warnings == []


def test_too_few_random_videos_are_reported_by_how_much() -> None:
    plan = plan_cavs(pool(CUP, {"spatial": videos("r", 20)}), 8, (), seed=0)
    assert any("take 40 source videos" in w and "there are 20" in w for w in plan.warnings)


def test_the_null_is_every_pair_of_the_same_sets_once() -> None:
    clips = pool(CUP, STILL)
    plan = plan_cavs(clips, 8, (), seed=0)
    sets = {j.negatives: set(j.rows().negative) for j in plan.jobs if not j.is_null}
    null = sorted((j for j in plan.jobs if j.is_null), key=lambda j: j.run)
    assert [(j.concept, j.negatives) for j in null] == [
        (f"random/spatial#{i}", f"random/spatial#{j}") for i in range(8) for j in range(i + 1, 8)
    ]
    for job in null:
        assert set(job.rows().positive) == sets[job.concept]
        assert set(job.rows().negative) == sets[job.negatives]


def test_overlapping_random_sets_still_give_disjoint_pairs_of_full_size() -> None:
    plan = plan_cavs(pool(CUP, {"spatial": videos("r", 12)}), 8, (), seed=0)
    for job in plan.jobs:
        assert set(job.rows().positive).isdisjoint(job.rows().negative)
        assert len(job.rows().negative) == 5


def test_a_small_pool_makes_each_cav_use_part_of_the_concept() -> None:
    plan = plan_cavs(pool({"cup/spatial": videos("c", 10)}, {"spatial": videos("r", 8)}), 6, (), seed=0)
    own = [j for j in plan.jobs if not j.is_null]
    assert {j.size for j in own} == {4}
    assert len({i for j in own for i in j.rows().positive}) > 4  # not the same part each time
    assert any("uses 4 of its 10" in w for w in plan.warnings)


def test_a_concept_without_random_clips_is_left_out_and_reported() -> None:
    plan = plan_cavs(pool(CUP | {"ball/spatial": ["b"]}, STILL), 4, (), seed=0)
    assert {j.concept for j in plan.jobs if not j.is_null} == {"cup/spatial"}
    assert any(w.startswith("ball/spatial") and "left out" in w for w in plan.warnings)


def test_the_rest_of_a_kind_never_shares_a_video_with_the_concept() -> None:
    clips = pool(CUP | {"ball/spatial": [*videos("c", 3), *videos("b", 4)], "box/spatial": videos("x", 6)}, STILL)
    plan = plan_cavs(clips, 5, ("groups",), seed=0)
    rest = [j for j in plan.jobs if j.against == "rest of spatial"]
    assert Counter(j.concept for j in rest) == {"cup/spatial": 5, "ball/spatial": 5, "box/spatial": 5}
    for job in rest:
        own = {clips.video_id[i] for i in job.rows().positive}
        other = [clips.video_id[i] for i in job.rows().negative]
        assert own.isdisjoint(other)
        assert len(set(other)) == len(other)


def test_pairs_set_moving_against_still_and_against_controls() -> None:
    kinds = ("spatial", "spatiotemporal", "frozen")
    clips = pool({f"cup/{k}": videos("c", 5) for k in kinds}, {k: videos("r", 40) for k in kinds})
    plan = plan_cavs(clips, 3, ("pairs",), seed=0)
    pairs = Counter((j.concept, j.against) for j in plan.jobs if not j.is_null and j.against != RANDOM)
    assert pairs == {("cup/spatiotemporal", "cup/spatial"): 3, ("cup/spatiotemporal", "cup/frozen"): 3}
    assert {j.split for j in plan.jobs if j.against == "cup/frozen"} == {0, 1, 2}


def test_another_concept_changes_nothing_for_this_one() -> None:
    alone = plan_cavs(pool(CUP, STILL), 4, (), seed=0)
    both = plan_cavs(pool({"ant/spatial": videos("a", 5), **CUP}, STILL), 4, (), seed=0)

    def names(plan, clips):  # type: ignore[no-untyped-def]
        return [
            [clips.video_id[i] for i in (*j.rows().positive, *j.rows().negative)]
            for j in plan.jobs
            if j.concept == "cup/spatial"
        ]

    assert names(alone, pool(CUP, STILL)) == names(both, pool({"ant/spatial": videos("a", 5), **CUP}, STILL))


def test_the_seed_decides_the_draws() -> None:
    first, again, other = (plan_cavs(pool(CUP, STILL), 4, (), seed=s) for s in (0, 0, 1))
    rows = [[list(j.rows().negative) for j in p.jobs] for p in (first, again, other)]
    assert rows[0] == rows[1] != rows[2]

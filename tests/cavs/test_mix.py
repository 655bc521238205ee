"""Random sets with a concept's own labels (`clips.random_labels: matched`)."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import binom

from vtcav_ray.cavs.chance import comparisons
from vtcav_ray.cavs.mix import Matching, Mix, matched_rows
from vtcav_ray.cavs.plan import RANDOM, CavPlan, Pool, plan_cavs
from vtcav_ray.tcav import effect_family


def pool(concepts: dict[str, dict[str, int]], randoms: dict[str, int], *, matched: bool = True) -> Pool:
    """Make a pool of concepts and random clips, with their videos by label."""
    rows, label_of = [], {}
    for name, counts in [*concepts.items(), (RANDOM, randoms)]:
        role = RANDOM if name == RANDOM else "concept"
        for label, count in counts.items():
            for i in range(count):
                rows.append((role, f"{name}/spatial", "spatial", f"{name}-{label}-{i}"))
                label_of[rows[-1][3]] = label
    columns = (list(column) for column in zip(*rows, strict=True))
    return Pool(*columns, Matching(label_of, 0) if matched else None)


def labels_of(clips: Pool, rows: np.ndarray) -> Counter[str]:
    return Counter(clips.video_id[row].split("-")[1] for row in rows)


def planned(clips: Pool, sets: int = 6) -> CavPlan:
    return plan_cavs(clips, sets, (), seed=0)


MOSTLY_LIFT = {"cup": {"lift": 6, "push": 2}}
EVEN = {"lift": 40, "push": 20, "drop": 30}


def test_every_random_set_has_the_concepts_labels() -> None:
    clips = pool(MOSTLY_LIFT, EVEN)
    plan = planned(clips)
    videos = np.array(clips.video_id)
    of_null = 0
    for job in plan.jobs:
        both = job.rows()
        for side in both:
            assert labels_of(clips, side) == {"lift": 6, "push": 2}
            assert len(set(videos[side])) == 8
        assert not set(videos[both.positive]) & set(videos[both.negative])
        of_null += job.is_null
        assert job.mix == Mix((1,) * 8, ("lift",) * 6 + ("push",) * 2)
    assert of_null == 15
    assert plan.warnings == []  # 6 sets of 6 of `lift` and of 2 of `push` are disjoint
    sets = {job.negatives: job.rows().negative for job in plan.jobs if not job.is_null}
    assert len(np.unique(np.concatenate(list(sets.values())))) == 6 * 8


def test_the_same_seed_draws_the_same_sets() -> None:
    clips = pool(MOSTLY_LIFT, EVEN)
    first, again = ([job.rows() for job in planned(clips).jobs] for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.positive, other.positive)
        assert np.array_equal(one.negative, other.negative)
    differs = plan_cavs(clips, 6, (), seed=1).jobs
    assert any(
        not np.array_equal(one.negative, other.rows().negative) for one, other in zip(first, differs, strict=True)
    )


def test_pairs_of_overlapping_sets_keep_the_labels_and_share_no_video() -> None:
    clips = pool(MOSTLY_LIFT, {"lift": 13, "push": 5, "drop": 30})
    plan = planned(clips)
    videos = np.array(clips.video_id)
    for job in plan.jobs:
        both = job.rows()
        assert labels_of(clips, both.positive) == labels_of(clips, both.negative) == {"lift": 6, "push": 2}
        assert not set(videos[both.positive]) & set(videos[both.negative])
    (warning,) = plan.warnings
    assert (
        "Random sets (spatial of lift): 6 sets of 6 take 36 source videos to be disjoint, and there are 13" in warning
    )


def test_a_label_with_too_few_random_videos_is_named() -> None:
    clips = pool(MOSTLY_LIFT, {"lift": 7, "push": 20, "drop": 30})
    plan = planned(clips, 3)
    assert (
        "cup/spatial: too few random videos of 1 of its 2 labels (lift: 6 of the concept, 7 random). Its CAVs use half "
        "as many of the concept's videos of these labels as there are random ones."
    ) in plan.warnings[0]
    for job in plan.jobs:
        both = job.rows()
        assert labels_of(clips, both.positive) == labels_of(clips, both.negative) == {"lift": 3, "push": 2}
    alone = plan_cavs(pool({"cup": {"lift": 6}}, {"push": 20}), 3, (), seed=0)
    assert alone.jobs == []
    assert "6 source videos and 20 random ones of its kind and labels" in alone.warnings[0]


def test_concepts_of_one_mix_share_their_null() -> None:
    clips = pool({"cup": {"lift": 4}, "ball": {"lift": 4}, "box": {"push": 4}}, EVEN)
    nulls = [job for job in planned(clips, 3).jobs if job.is_null]
    assert Counter(job.labels[0] for job in nulls) == {"lift": 3, "push": 3}


def test_the_effects_random_clips_have_the_concepts_shares() -> None:
    clips = pool(MOSTLY_LIFT, EVEN)
    own, randoms = clips.rows("concept")["cup/spatial"], clips.rows(RANDOM)["random/spatial"]
    assert clips.matching is not None

    def drawn(randoms: dict[str, np.ndarray], name: str = "cup/spatial") -> np.ndarray:
        assert clips.matching is not None
        return matched_rows(own, randoms, clips.matching, name)

    rows = drawn(randoms)
    assert labels_of(clips, rows) == {"lift": 40, "push": 13}  # 40 / 6 per video of the concept
    assert np.array_equal(rows, drawn(randoms))
    assert not np.array_equal(rows, drawn(randoms, "ball/spatial"))
    few = {video: of for video, of in randoms.items() if "lift" not in video or video.endswith(("-0", "-1"))}
    assert labels_of(clips, drawn(few)) == {"lift": 2, "push": 2}  # all there are, and as many as the concept has
    none = {video: of for video, of in randoms.items() if "lift" not in video}
    assert labels_of(clips, drawn(none)) == {"push": 20}
    assert len(drawn({})) == 0


def test_stand_ins_are_divided_within_labels() -> None:
    clips = pool(MOSTLY_LIFT, EVEN)
    (one,) = comparisons(clips, planned(clips).jobs)
    for positive, negative in one.draws(0, draws=5, runs=2).sides:
        assert labels_of(clips, positive) == labels_of(clips, negative) == {"lift": 6, "push": 2}


@pytest.mark.slow
def test_matched_random_clips_take_the_label_out_of_the_effect() -> None:
    """The label raises the projection, and the concept does nothing beyond it."""
    clips = pool({"cup": {"a": 16, "b": 2, "c": 1, "d": 1}}, dict.fromkeys("abcd", 20))
    own, randoms = clips.rows("concept")["cup/spatial"], clips.rows(RANDOM)["random/spatial"]
    assert clips.matching is not None
    everything = np.concatenate(list(randoms.values()))
    matched = matched_rows(own, randoms, clips.matching, "cup/spatial")
    assert labels_of(clips, matched) == {"a": 20, "b": 2, "c": 1, "d": 1}
    concept = np.concatenate(list(own.values()))
    labels = np.array([clips.matching.label_of[video] for video in clips.video_id])
    worlds, rejected = 300, Counter[str]()
    for world in range(worlds):
        values = np.random.default_rng(world).normal(size=(len(labels), 1)) + 3 * (labels == "a")[:, None]
        for name, other in (("any", everything), ("matched", matched)):
            strata = labels[np.concatenate((concept, other))]
            found = effect_family(values[concept], values[other], strata=strata, permutations=199, seed=world)
            rejected[name] += bool(found.p[0] <= 0.05)
            rejected[f"{name}, within"] += bool(found.p_within[0] <= 0.05)
    low, high = binom.ppf([0.0005, 0.9995], worlds, 0.05)
    assert rejected["any"] > 0.9 * worlds
    assert rejected["matched"] < low
    assert rejected["any, within"] <= high
    assert low <= rejected["matched, within"] <= high

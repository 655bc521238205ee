"""The predicted number of videos that `videos.enough` looks at."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tests.helpers.tracked_things import videos_table
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.planning.looked import Shown, looked_at

CUPS = {"name": "cup", "object": "cup", "kinds": ["spatial"]}


def config(**videos: Any) -> Config:
    clips = {"concepts": [CUPS], "per_class": 10, "per_concept": 20, "random_pool": 100}
    return parse_config({"videos": {"uri": "videos", **videos}, "clips": clips})


def corpus(count: int) -> pa.Table:
    return videos_table({f"{i:05d}.mp4": f"label {i % 4}" for i in range(count)})


@pytest.mark.slow
def test_a_rarer_concept_needs_more_videos() -> None:
    often, seldom = (looked_at(config(), corpus(20_000), Shown(100, {"cup": n}, 90), None) for n in (50, 5))
    assert often is not None
    assert seldom is not None
    assert often[0] <= often[1] <= often[2] < 20_000
    # 22 candidates, of which half of the videos may give some: a twentieth of them shows a cup.
    assert 40 + 22 / (0.5 * 5.5 / 101) <= seldom[1] <= 40 + 22 / (0.5 * 5.5 / 101) + 512
    assert often[1] < seldom[1] < seldom[2]
    assert all(end % 512 == 0 for end in (*often, *seldom))


def test_the_upper_end_allows_for_a_concept_of_few_labels() -> None:
    one_label = videos_table({f"{i:05d}.mp4": "label" for i in range(20_000)})
    found, alone = (
        looked_at(config(), videos, Shown(100, {"cup": 20}, 90), None) for videos in (corpus(20_000), one_label)
    )
    assert found is not None
    assert alone is not None
    assert found[:2] == alone[:2]
    assert found[2] > 2 * alone[2]  # with one label, no clip can come from another


def test_a_concept_that_the_sample_lacks_may_take_all_videos() -> None:
    found = looked_at(config(), corpus(5_000), Shown(8, {}, 8), None)
    assert found is not None
    assert found[2] == 5_000


def test_a_limit_bounds_it() -> None:
    found = looked_at(config(limit=1_000), corpus(5_000), Shown(8, {}, 8), None)
    assert found is not None
    assert found[2] == 1_000


def test_all_videos_are_tracked_without_a_search() -> None:
    shown = Shown(8, {"cup": 4}, 8)
    assert looked_at(config(enough=False), corpus(5_000), shown, None) is None
    assert looked_at(config(), corpus(512), shown, None) is None

"""The simulation of `videos.enough` chooses the planner's clips, and fits and measures what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.tracked_things import track_row, tracks_table, videos_table
from vtcav_ray.clips.enough import Look
from vtcav_ray.clips.select import plan_clips

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.slow
@pytest.mark.parametrize("reserve", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_sets_are_the_planners(seed: int, reserve: bool) -> None:
    from enough import config_of
    from enough_calibration import chosen

    rng = np.random.default_rng(seed)
    labels = {f"{label}/{i:03d}.mp4": label for label, n in (("a", 150), ("b", 60), ("c", 20)) for i in range(n)}
    looks = {
        video: Look(label, frozenset({"null"} if rng.random() < 0.3 else ()), True, reserve and rng.random() < 0.4)
        for video, label in labels.items()
    }
    sizes = {"per_concept": 8, "min_per_concept": 2, "random_pool": 30, "per_class": 4, "min_per_class": 2}
    config = config_of(seed, ["null"], frames=8, interval=2, controls=[], **sizes)
    videos = videos_table(dict(labels))
    if reserve:
        column = [looks[video].reserved for video in videos["video_id"].to_pylist()]
        videos = videos.append_column("reserved", [column])
    tracks = tracks_table([track_row(v, 1, "null" if look.concepts else "box") for v, look in looks.items()])
    plan = plan_clips(videos, [tracks], [], config.clips, seed, corpus_videos=len(labels)).rows.to_pylist()
    concept, random = chosen(looks, config, len(labels), reserve=reserve)
    assert {row["video_id"] for row in plan if row["set"] == "concept"} == set(concept)
    assert {row["video_id"] for row in plan if row["set"] == "random"} == set(random)
    assert (len(concept), len(random)) == (8, 30)


def test_sets_by_chance_have_a_label_distance_of_one() -> None:
    from enough_calibration import label_distance

    rng = np.random.default_rng(0)
    videos = [f"l{i % 12}/{i}" for i in range(120)]
    found = []
    for _ in range(2000):
        dealt = [videos[i] for i in rng.permutation(120)]
        found.append(label_distance(dealt[:20], dealt[20:]))
    assert abs(np.mean(found) - 1) < 0.05
    assert label_distance(["a/1", "b/1"], ["a/2", "b/2"]) == 0
    assert label_distance(["a/1", "a/2"], ["b/1", "b/2"]) > 2


def test_labels_that_differ_between_the_sets_reject_too_often() -> None:
    from enough_calibration import rejected

    same = [f"l{i % 10}/{i}" for i in range(20)], [f"l{i % 10}/{i}" for i in range(20, 120)]
    other = [f"l{i % 3}/{i}" for i in range(20)], [f"l{i % 10}/{i}" for i in range(20, 120)]
    assert rejected(*same, 0.8, 60, 0) < 0.05
    assert rejected(*other, 0.8, 60, 0) > 0.1
    assert rejected(*other, 0.0, 200, 0) < 0.1  # labels do not matter to the vectors


def test_the_fit_finds_the_parameters() -> None:
    from enough_fit import fit

    rng = np.random.default_rng(0)
    rates = rng.beta(0.2 * 2.0, 0.8 * 2.0, 400)
    found = fit(rng.binomial(30, rates), np.full(400, 30))
    assert abs(found["mean"] - 0.2) < 0.03
    assert 1.6 < found["concentration"] < 2.5
    with pytest.raises(ValueError, match="no beta distribution"):
        fit([0, 0], [5, 5])

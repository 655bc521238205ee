"""The measured sample: what it runs, what it counts, and what it says about what failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.small_runs import facts
from tests.helpers.tracked_things import track_row, tracks_table, videos_table
from vtcav_ray.config import Config, StageResources
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.planning import sample
from vtcav_ray.planning.counts import concepts_of
from vtcav_ray.planning.sample import measure, planned_jobs, time_statistics
from vtcav_ray.rows import Failure
from vtcav_ray.runs.stage import Context, Stage, Work, make_shards
from vtcav_ray.store.commits import ShardOutput, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.vectors import vector_array

CUP = {"name": "cup", "object": "cup", "kinds": ["spatial"]}
Called = list[tuple[str, list[str]]]


def config(**changes: Any) -> Config:
    return parse_config(
        {
            "videos": {"uri": "x"},
            "clips": {"concepts": [CUP], "per_concept": 10, "random_pool": 40},
            "activations": {"layers": ["late"]},
            "cavs": {"random_sets": 4},
            **changes,
        }
    )


def toy(
    name: str,
    called: Called,
    output: Callable[[pa.Table], ShardOutput],
    notes: Mapping[str, Any] | None = None,
) -> Stage:
    """Make a stage over the listed videos that keeps what its worker was called with."""

    def worker(rows: pa.Table) -> ShardOutput:
        called.append((name, rows["video_id"].to_pylist()))
        return output(rows)

    def prepare(context: Context) -> Work:
        videos = context.input("videos").read("videos")
        assert videos is not None
        shards = make_shards(videos, context.config.shard_videos or 1)
        return Work(shards, lambda: worker, StageResources(cpus=1), notes=notes or {})

    return Stage(facts(name, ("videos",)), 1, lambda _: {}, prepare)


def tracked(rows: pa.Table) -> ShardOutput:
    found = [track_row(video) for video in rows["video_id"].to_pylist()]
    return ShardOutput({"tracks": tracks_table(found)})


def cut(rows: pa.Table) -> ShardOutput:
    failed = [
        Failure(video_id=video, error_kind="decode", message="cut off")
        for video in rows["video_id"].to_pylist()
        if video == "3.mp4"
    ]
    return ShardOutput({}, failed, {"clips": 4.0 * rows.num_rows})


def extracted(rows: pa.Table) -> ShardOutput:
    vectors = vector_array(np.zeros((rows.num_rows, 6), np.float32))
    table = pa.table({"video_id": rows["video_id"], "vector": vectors})
    return ShardOutput({"activations/layer=late": table}, metrics={"clips": 4 * rows.num_rows, "gradients": 3})


def answered(rows: pa.Table) -> ShardOutput:
    return ShardOutput({}, metrics={"clips": 2 * rows.num_rows})


def refusing(error: Exception) -> Callable[[pa.Table], ShardOutput]:
    def refused(_: pa.Table) -> ShardOutput:
        raise error

    return refused


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Called:
    """Replace the stages, which need a detector and a recogniser, and return what their workers are called with."""
    found: Called = []
    monkeypatch.setattr(sample, "TRACKS", toy("tracks", found, tracked))
    monkeypatch.setattr(sample, "CLIPS", toy("clips", found, cut))
    monkeypatch.setattr(sample, "ACTIVATIONS", toy("activations", found, extracted))
    monkeypatch.setattr(sample, "RESPONSES", toy("responses", found, answered, {"references": 5}))
    return found


def corpus(count: int = 8) -> pa.Table:
    return videos_table({f"{i}.mp4": "lift" for i in range(count)})


def test_the_sample_runs_each_stage_and_counts_its_items(called: Called) -> None:
    found = measure(config(), corpus(), 5)
    assert found.videos == 5
    assert list(dict.fromkeys(name for name, _ in called)) == ["tracks", "clips", "activations"]
    shards = [videos for name, videos in called if name == "tracks"]
    assert shards[0] == shards[1]  # the first call is a warm-up
    assert [len(videos) for videos in shards[1:]] == [2, 2, 1]
    chosen = [video for videos in shards[1:] for video in videos]
    assert len(set(chosen)) == 5
    assert chosen == sorted(chosen)
    assert found.tracks.items == [2, 2, 1]
    assert found.clips.items == [8, 8, 4]
    assert found.clips.failures == chosen.count("3.mp4")
    assert found.activations.items == [8 + 3, 8 + 3, 4 + 3]  # a backward pass costs as much as a forward pass
    assert found.activations.rows == 20 + 9
    assert found.dims == (6,)
    for timed in (found.tracks, found.clips, found.activations):
        assert len(timed.seconds) == 3
        assert all(seconds >= 0 for seconds in timed.seconds)
    assert found.tracks.bytes > 0
    assert found.responses.items == ()
    assert found.notes == ()


def test_the_draw_depends_on_the_seed_only(called: Called) -> None:
    def drawn(seed: int) -> list[str]:
        called.clear()
        measure(config(seed=seed), corpus(40), 2)
        return sorted({video for _, videos in called for video in videos})

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_a_sample_is_no_larger_than_the_corpus(called: Called) -> None:
    assert measure(config(), corpus(3), 100).videos == 3
    assert {video for _, videos in called for video in videos} == {"0.mp4", "1.mp4", "2.mp4"}


def test_patch_effects_take_a_pass_for_each_pair_of_clips(called: Called) -> None:
    found = measure(config(scores={"effect": "patch"}), corpus(), 3)
    assert found.responses.items == [5 * 4, 5 * 2]
    assert found.notes == ()


@pytest.mark.parametrize("error", [ConfigError("no such layer"), StageError("no such layer")])
def test_patch_effects_that_fail_are_a_note(called: Called, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(sample, "RESPONSES", toy("responses", called, refusing(error)))
    found = measure(config(scores={"effect": "patch"}), corpus(), 3)
    assert found.notes == ("The passes of the patch effects could not be measured: no such layer",)
    assert found.dims == (6,)


def test_without_clips_only_tracking_is_measured(called: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "CLIPS", toy("clips", called, refusing(StageError("no concept has clips"))))
    found = measure(config(), corpus(), 3)
    assert found.notes == ("Only tracking could be measured: no concept has clips",)
    assert found.tracks.items == [2, 1]
    assert (found.clips.items, found.activations.items, found.dims) == ((), (), ())


def test_own_clips_are_among_the_sample(called: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[pa.Table | None] = []

    def prepare(context: Context) -> Work:
        given.append(context.input("videos").read("given"))
        return Work([], lambda: cut)

    monkeypatch.setattr(sample, "CLIPS", Stage(facts("clips", ("videos",)), 1, lambda _: {}, prepare))
    own = pa.Table.from_pylist([{"uri": "own.mp4"}])
    measure(config(), corpus(), 2, own)
    measure(config(), corpus(), 2)
    assert given == [own, None]


def test_own_clips_need_no_tracking(called: Called, tmp_path: Path) -> None:
    own = config(clips={"concepts": [{"name": "cup", "clips": str(tmp_path)}]})
    found = measure(own, corpus(), 3)
    assert [name for name, _ in called].count("tracks") == 0
    assert found.tracks.items == ()


def test_a_worker_is_timed_with_the_threads_of_its_actor(called: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    threads: list[int] = []

    def counting(rows: pa.Table) -> ShardOutput:
        threads.append(torch.get_num_threads())
        return tracked(rows)

    monkeypatch.setattr(sample, "TRACKS", toy("tracks", called, counting))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        measure(config(), corpus(), 3)
        assert threads == [2, 1, 1]  # the warm-up, and two shards on one CPU
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_the_tracked_videos_show_is_counted(tmp_path: Path) -> None:
    run = Folder(str(tmp_path))
    videos, tracks = (stage_folder(run, name, "sample") for name in ("videos", "tracks"))
    videos.commit("all", ShardOutput({"videos": corpus(5)}))
    rows = [track_row("0.mp4"), track_row("0.mp4", 2, "ball"), track_row("1.mp4", label="ball"), track_row("3.mp4")]
    tracks.commit("a", ShardOutput({"tracks": tracks_table(rows[:2])}))
    tracks.commit(
        "b",
        ShardOutput(
            {"tracks": tracks_table(rows[2:])}, [Failure(video_id="4.mp4", error_kind="decode", message="cut off")]
        ),
    )
    for folder in (videos, tracks):
        folder.finish({}, {"notes": {}, "warnings": []})
    short = {"concepts": [CUP], "frames": 8}  # the tracks have 40 frames
    shown = sample._shown(config(clips=short), {"videos": videos, "tracks": tracks})
    assert (shown.videos, shown.moving) == (4, 3)  # one failed, and one has no track
    assert shown.concepts == {"cup": 2}
    whole = config(clips=short, videos={"uri": "x", "enough": False})
    assert sample._shown(whole, {"videos": videos, "tracks": tracks}).videos == 0


def test_statistics_are_timed_by_cav_class_and_cell() -> None:
    two = config(
        clips={"concepts": [CUP, {**CUP, "name": "ball"}], "per_concept": 10, "random_pool": 40},
        scores={"permutations": 100, "bootstrap": 100},
    )
    pool, jobs = planned_jobs(two, concepts_of(two), 40)
    cav, of_class, cell = time_statistics(two, jobs, pool, 4)
    assert cav > 0
    assert of_class >= 0
    assert cell > 0
    one = config(clips={"concepts": [CUP], "per_concept": 10, "random_pool": 40}, scores=two.scores.model_dump())
    pool, jobs = planned_jobs(one, concepts_of(one), 40)
    cav, of_class, cell = time_statistics(one, jobs, pool, 4)
    assert cav > 0
    assert of_class == 0  # with one concept, class and cell can't be told apart
    assert cell > 0

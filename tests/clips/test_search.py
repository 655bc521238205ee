"""Runs with `videos.enough`: they stop early, always with the same videos, and with full sets."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import vtcav_ray
from tests.helpers.searched_corpus import CUP, chance, config_of, hash_source, write_corpus
from tests.helpers.small_runs import without_ray
from vtcav_ray.clips.stage import _plan
from vtcav_ray.config import Config
from vtcav_ray.errors import ConfigError
from vtcav_ray.pipeline import Silence
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.stage import Context
from vtcav_ray.store.records import COMMITS

pytestmark = pytest.mark.slow

VIDEOS = 1200


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("corpus") / "videos"
    write_corpus(folder, VIDEOS)
    with hash_source():
        yield folder


def tracked(config: Config, progress: Any = None, **options: Any) -> Run:
    with without_ray():
        return vtcav_ray.run(config, progress, until="tracks", **options)


@pytest.fixture(scope="module")
def enough(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tracked(config_of(corpus, tmp_path_factory.mktemp("enough") / "run"))


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tracked(config_of(corpus, tmp_path_factory.mktemp("whole") / "run", "videos.enough=false"))


def looked_at(run: Run) -> list[str]:
    ids: list[str] = run.table("videos")["video_id"].to_pylist()
    return ids


def plan_of(run: Run, config: Config | None = None) -> Any:
    """Plan the clips of a run, or those of another config on its tracks."""
    inputs = {name: run.stage(name) for name in ("videos", "tracks")}
    return _plan(Context(config or run.config, run.folder, inputs), {})


def same_files(one: Run, other: Run) -> bool:
    """Whether two runs' tracks have the same shards, with the same bytes."""

    def content(run: Run) -> dict[str, str]:
        shards = run.manifest("tracks")["shards"]
        return {path: entry["sha256"] for files in shards.values() for path, entry in files.items()}

    return content(one) == content(other)


class StopAfter(Silence):
    """Progress that stops the run, as Ctrl-C does, after some shards."""

    def __init__(self, shards: int) -> None:
        self.left = shards

    def shard_done(self, stage: str, *, failures: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def test_it_stops_early(enough: Run, whole: Run) -> None:
    notes = enough.manifest("videos")["notes"]["enough"]
    ids = looked_at(enough)
    assert len(set(ids)) == len(ids) == notes["looked_at"] < VIDEOS / 2
    assert len(ids) == 64 * notes["rounds"]
    assert len(looked_at(whole)) == VIDEOS
    assert notes["ended"] == "full"
    assert set(enough.table("tracks")["video_id"].to_pylist()) <= set(ids)


def test_the_sets_are_as_large_as_those_of_the_whole_corpus(enough: Run, whole: Run) -> None:
    one, other = plan_of(enough), plan_of(whole)
    assert (
        one.counts["classes"]
        == other.counts["classes"]
        == dict.fromkeys(("lift", "push_left", "push_right", "put_down"), 20)
    )
    for name in ("cup", "ball"):
        assert one.counts["concepts"][name]["clips"] == other.counts["concepts"][name]["clips"] == 10
    assert one.counts["random"] == other.counts["random"] == {"spatial": 30}
    assert one.counts["videos"]["random"] == other.counts["videos"]["random"] == 30


def test_random_clips_come_from_the_reserve(enough: Run) -> None:
    videos = enough.table("videos")
    kept = {v for v, r in zip(*(videos[name].to_pylist() for name in ("video_id", "reserved")), strict=True) if r}
    rows = plan_of(enough).rows.to_pylist()
    assert {row["video_id"] for row in rows if row["set"] == "random"} <= kept
    assert not {row["video_id"] for row in rows if row["set"] == "concept"} & kept
    # The reserve shows what the corpus shows: no concept took its videos from it.
    share = sum(chance(video, "cup") < CUP for video in kept) / len(kept)
    assert abs(share - CUP) < 4 * (CUP * (1 - CUP) / len(kept)) ** 0.5


def test_a_rare_concept_is_looked_for_in_its_label(enough: Run) -> None:
    labels = enough.table("videos", columns=["label"])["label"].to_pylist()
    # From the third round on, the share of `push_left` that is for balls is added to its turn.
    assert labels[:128].count("push_left") == 32
    assert labels[128:192].count("push_left") > 20
    counts = {one["set"]: one for one in enough.manifest("videos")["notes"]["enough"]["sets"]}
    assert counts["concept/ball"]["found"] >= counts["concept/ball"]["wanted"] == 11


def test_bad_videos_are_failures_and_stop_nothing(enough: Run) -> None:
    failed = set(enough.table("failures")["video_id"].to_pylist())
    assert failed == {video for video in looked_at(enough) if chance(video, "bad") < 0.03}
    assert failed


@pytest.mark.parametrize(  # a round has 16 shards
    "shards", [0, *[pytest.param(n, marks=pytest.mark.full) for n in (1, 16, 17, 40)]]
)
def test_a_stopped_search_resumes_with_the_same_videos(corpus: Path, enough: Run, tmp_path: Path, shards: int) -> None:
    config = config_of(corpus, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        tracked(config, StopAfter(shards))
    run = tracked(config)
    assert looked_at(run) == looked_at(enough)
    assert run.keys == enough.keys
    assert same_files(run, enough)


def test_no_shard_of_a_further_round_is_left(enough: Run) -> None:
    folder = enough.stage("tracks")
    assert folder.committed() == set(folder.manifest()["shards"])
    assert len(folder.folder.names("tracks")) == len(folder.committed())
    assert enough.record["status"] == "done until: tracks"


def test_a_search_that_is_run_again_is_reused(corpus: Path, enough: Run, tmp_path: Path) -> None:
    config = config_of(corpus, Path(shutil.copytree(enough.url, tmp_path / "run")))
    seen = []

    class Seen(Silence):
        def stage_finished(self, stage: str, manifest: Mapping[str, Any], *, reused: bool) -> None:
            seen.append((stage, reused))

    tracked(config, Seen())
    assert seen == [("videos", True), ("tracks", True)]


def test_a_broken_list_is_computed_again_from_the_tracks(corpus: Path, enough: Run, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(enough.url, tmp_path / "run"))
    (file,) = (copy / "videos" / enough.keys["videos"] / "videos").iterdir()
    file.write_bytes(b"broken")
    run = tracked(config_of(corpus, copy))
    assert looked_at(run) == looked_at(enough)
    assert run.keys == enough.keys


def test_other_clips_carry_the_tracks_over(corpus: Path, enough: Run, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(enough.url, tmp_path / "run"))
    config = config_of(corpus, copy, "clips.per_concept=12")
    run = tracked(config)
    assert run.keys["tracks"] != enough.keys["tracks"]
    assert set(looked_at(enough)) & set(looked_at(run)) > set(looked_at(enough)[:128])
    metrics = run.manifest("tracks")["metrics"]
    assert metrics["carried"] >= 128
    assert metrics["carried"] + metrics["worked_on"] == len(looked_at(run))


def test_a_limit_ends_the_search(corpus: Path, enough: Run, tmp_path: Path) -> None:
    run = tracked(config_of(corpus, tmp_path / "run", "videos.limit=150"))
    notes = run.manifest("videos")["notes"]["enough"]
    assert notes["ended"] == "limit"
    assert looked_at(run) == looked_at(enough)[:150]
    assert "reserved" not in run.table("videos").column_names  # as without a search
    (warning,) = [w for w in run.manifest("videos")["warnings"] if "Adaptive" in w]
    assert "150 of 1,200 videos were looked at" in warning
    assert "Not filled" in warning


@pytest.mark.full
def test_a_concept_that_nothing_shows_looks_at_everything(corpus: Path, whole: Run, tmp_path: Path) -> None:
    nothing = "clips.concepts=[{name: cup, object: cup, kinds: [spatial]}, {name: owl, object: owl, kinds: [spatial]}]"
    run = tracked(config_of(corpus, tmp_path / "run", nothing))
    assert run.manifest("videos")["notes"]["enough"]["ended"] == "exhausted"
    assert sorted(looked_at(run)) == looked_at(whole)
    of_all = plan_of(whole, config_of(corpus, tmp_path / "whole", nothing, "videos.enough=false"))
    assert plan_of(run).rows == of_all.rows  # the plan of the whole corpus, clip by clip


def test_proposed_concepts_are_searched_if_asked(corpus: Path, tmp_path: Path) -> None:
    auto = ["clips.concepts=auto", "clips.max_concepts=2", "clips.min_per_concept=4"]
    assert not config_of(corpus, tmp_path, *auto).stops_at_enough
    assert config_of(corpus, tmp_path, *auto, "videos.limit=900").stops_at_enough
    run = tracked(config_of(corpus, tmp_path / "run", *auto, "videos.enough=true"))
    assert run.manifest("videos")["notes"]["enough"]["ended"] == "full"
    assert len(plan_of(run).counts["concepts"]) == 2


def test_a_small_corpus_keeps_its_keys(corpus: Path, tmp_path: Path) -> None:
    one, other = (
        tracked(config_of(corpus, tmp_path / f"{enough}", "videos.limit=64", f"videos.enough={enough}"))
        for enough in ("true", "false")
    )
    assert one.keys == other.keys
    assert "enough" not in one.record


def test_run_json_tells_how_many_of_how_many(enough: Run) -> None:
    found = enough.record["enough"]
    assert (found["looked_at"], found["of"]) == (len(looked_at(enough)), VIDEOS)
    sets = {one["set"]: one for one in found["sets"]}
    assert set(sets) == {
        "class/lift", "class/put_down", "class/push_left", "class/push_right", "concept/cup", "concept/ball", "random"
    }  # fmt: skip
    assert sets["class/lift"]["of"] == VIDEOS / 4
    assert sets["concept/cup"]["looked_at"] < sets["concept/ball"]["looked_at"] == len(looked_at(enough))
    assert all(one["full"] for one in found["sets"])


def test_enough_needs_a_detector(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="detects nothing"):
        config_of(
            corpus, tmp_path, "videos.enough=true", "clips.concepts={from: world}", "videos.world={}", "videos.uri=null"
        )


def test_a_lost_shard_of_the_search_is_tracked_again(corpus: Path, enough: Run, tmp_path: Path) -> None:
    config = config_of(corpus, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        tracked(config, StopAfter(20))
    record = sorted((tmp_path / "run" / "tracks" / enough.keys["tracks"] / COMMITS).iterdir())[2]
    record.write_text("{")
    assert same_files(tracked(config), enough)

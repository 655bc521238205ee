"""Rounds on a real Ray: the videos are those of a run without Ray, after kills, and although actors die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
import ray.cloudpickle

import vtcav_ray
from tests.helpers import searched_corpus, tracked_things
from tests.helpers.searched_corpus import config_of, hash_source, write_corpus
from tests.helpers.small_runs import without_ray
from tests.helpers.toy_runs import in_actors
from tests.helpers.waiting import wait_for
from vtcav_ray.engine import run_shards
from vtcav_ray.engine.feed import Feed
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.stage import Shard, make_shards
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.store.folder import Folder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("on_ray")]

VIDEOS = 600
SECONDS = "0.03"  # a video; part of the stage's key
SETTINGS = ("clips.per_concept=6", "clips.random_pool=20", "clips.per_class=10", "resources.num_cpus=3")


def run_here(corpus: str, out: str, actors: str, seconds: str = "0") -> Run:
    """Run the search in this process, with Ray's workers."""
    for module in (searched_corpus, tracked_things):
        ray.cloudpickle.register_pickle_by_value(module)
    more = [*SETTINGS, f"resources.detect.max_actors={actors}", f"tracks.tracker_options={{seconds: {seconds}}}"]
    with hash_source():
        return vtcav_ray.run(config_of(Path(corpus), Path(out), *more), until="tracks")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "videos"
    write_corpus(folder, VIDEOS)
    return folder


def facts(run: Run) -> tuple[list[str], dict[str, str]]:
    """Return the videos in order, and the digest of every file of the tracks."""
    shards = run.manifest("tracks")["shards"]
    files = {path: entry["sha256"] for found in shards.values() for path, entry in found.items()}
    return run.table("videos")["video_id"].to_pylist(), files


def start(corpus: Path, out: Path, actors: int) -> subprocess.Popen[bytes]:
    """Start a search in another process, with a Ray of its own. A shard takes an eighth of a second."""
    command = [sys.executable, "-m", "tests.engine.shared_ray.test_rounds", str(corpus), str(out), str(actors), SECONDS]
    return subprocess.Popen(command, cwd=Path(__file__).parents[3], start_new_session=True)


@pytest.mark.full
def test_actors_and_kills_change_nothing(corpus: Path, tmp_path: Path) -> None:
    with without_ray():
        alone = run_here(str(corpus), str(tmp_path / "alone"), "1", SECONDS)
    assert len(facts(alone)[0]) < VIDEOS
    assert alone.record["enough"]["ended"] == "full"
    killed = start(corpus, tmp_path / "killed", 3)
    records = tmp_path / "killed" / "tracks" / alone.keys["tracks"] / "_commits"
    try:
        wait_for(lambda: records.is_dir() and len(list(records.iterdir())) > 18, seconds=240)
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    again = run_here(str(corpus), str(tmp_path / "killed"), "3", SECONDS)
    assert facts(again) == facts(alone)
    assert again.manifest("tracks")["resumed"]
    assert again.stage("tracks").committed() == set(alone.manifest("tracks")["shards"])


class Marking:
    """A worker that leaves a mark for each actor, and dies once if told to."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        (self.folder / f"actor-{os.getpid()}").touch()

    def __call__(self, rows: pa.Table) -> ShardOutput:
        (video,) = rows["video_id"].to_pylist()
        if video == "v3" and not (died := self.folder / "died").exists():
            died.touch()
            os._exit(1)
        time.sleep(0.05)
        return ShardOutput({"tracks": rows}, metrics={"videos": 1.0})


def one_video_shards(count: int) -> list[Shard]:
    return make_shards(pa.table({"video_id": [f"v{i}" for i in range(count)]}), 1)


@pytest.mark.full
def test_a_feed_grows_while_the_actors_stay_and_one_dies(tmp_path: Path) -> None:
    output = StageFolder("tracks", "k", Folder(str(tmp_path / "run")))
    shards = one_video_shards(24)
    feed = Feed(24)
    feed.add(shards[:4])
    seen: list[str] = []
    for record in run_shards(feed, lambda: Marking(str(tmp_path)), output, in_actors(max_actors=2)):
        seen.append(record["shard"])
        if len(seen) in (4, 8, 12):  # all that was fed is done: the read task waits
            feed.add(shards[len(seen) : len(seen) + 4])
        if len(seen) == 16:
            feed.close()
    assert sorted(seen) == sorted(shard.name for shard in shards[:16])
    assert output.committed() == set(seen)
    # Not one per round: at most two, one for the one that died, and one that the pool started in its place.
    assert len(list(tmp_path.glob("actor-*"))) <= 4
    assert (tmp_path / "died").exists()


def test_a_stopped_feed_skips_what_waits(tmp_path: Path) -> None:
    (tmp_path / "died").touch()
    output = StageFolder("tracks", "k", Folder(str(tmp_path / "run")))
    shards = one_video_shards(40)
    feed = Feed(40)
    feed.add(shards)
    seen = []
    for record in run_shards(feed, lambda: Marking(str(tmp_path)), output, in_actors(max_actors=1)):
        seen.append(record["shard"])
        if len(seen) == 3:
            feed.stop([shard.name for shard in shards[:3]])
    assert set(seen) >= {shard.name for shard in shards[:3]}
    assert len(seen) < 20  # those that had begun


if __name__ == "__main__":
    run_here(*sys.argv[1:])

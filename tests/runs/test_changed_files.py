"""Source videos that change during a run, between two runs, and before a rerun. Real models, no Ray."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.class_folders import class_folders
from vtcav_ray import pipeline
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import EnvironmentFault
from vtcav_ray.pipeline import Silence, failed_inputs
from vtcav_ray.runs.run import Run
from vtcav_ray.store import access

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_ray")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos in a folder a class."""
    return class_folders(tmp_path_factory.mktemp("world"), 16)


@pytest.fixture
def videos(world: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(world, tmp_path / "videos"))


def config(videos: Path, out: Path, **clips: Any) -> Config:
    concepts = [{"name": "cup", "object": "cup", "kinds": ["spatial"]}]
    small = {"per_class": 2, "min_per_class": 2, "per_concept": 4, "min_per_concept": 2, "random_pool": 16}
    return parse_config(
        {
            "videos": {"uri": str(videos)},
            "tracks": {"image_size": 128, "frame_stride": 2},
            "clips": {"frames": 16, "interval": 1, "size": 64, "concepts": concepts, **small, **clips},
            "out": str(out),
        }
    )


def one_with_clips(run: Run) -> str:
    return sorted(set(run.table("clips", columns=["video_id"])["video_id"].to_pylist()))[0]


def failures(run: Run) -> list[tuple[str, str, str]]:
    rows = run.table("failures").to_pylist()
    return [(row["stage"], row["video_id"], row["error_kind"]) for row in rows]


class After(Silence):
    """Progress that calls a function when a stage has ended."""

    def __init__(self, stage: str, then: Callable[[], object]) -> None:
        self.stage, self.then = stage, then

    def stage_finished(self, stage: str, manifest: Mapping[str, Any], *, reused: bool) -> None:
        if stage == self.stage:
            self.then()


def replace(videos: Path, name: str) -> None:
    """Replace a video with another one of the world, so that each frame that the tracks name exists."""
    other = next(path for path in sorted(videos.rglob("*.mp4")) if not str(path).endswith(name))
    data = other.read_bytes()
    (videos / name).write_bytes(data)


def test_a_file_replaced_between_tracks_and_clips_is_a_row_and_the_next_run_takes_the_new_one(
    videos: Path, tmp_path: Path
) -> None:
    undisturbed = pipeline.run(config(videos, tmp_path / "undisturbed"), until="clips")
    assert failures(undisturbed) == []
    name = one_with_clips(undisturbed)
    settings = config(videos, tmp_path / "run")
    run = pipeline.run(settings, After("tracks", lambda: replace(videos, name)), until="clips")
    assert failures(run) == [("clips", name, "changed")]
    assert failed_inputs(run).failed == 1
    # The other videos' clips are those of the undisturbed run, byte for byte.
    before, now = undisturbed.table("clips").to_pylist(), run.table("clips").to_pylist()
    assert now == [row for row in before if row["video_id"] != name]
    again = pipeline.run(settings, until="clips")
    assert failures(again) == []
    assert again.keys["videos"] != run.keys["videos"]


@pytest.mark.full
def test_a_file_replaced_after_the_listing_is_a_row_of_tracks(videos: Path, tmp_path: Path) -> None:
    name = sorted(str(path.relative_to(videos)) for path in videos.rglob("*.mp4"))[2]
    run = pipeline.run(config(videos, tmp_path / "run"), After("videos", lambda: replace(videos, name)), until="clips")
    assert failures(run) == [("tracks", name, "changed")]
    assert name not in run.table("tracks")["video_id"].to_pylist()
    assert name not in run.table("clips")["video_id"].to_pylist()


@pytest.mark.full
def test_a_run_and_a_rerun_on_a_copied_folder_have_no_failures(videos: Path, tmp_path: Path) -> None:
    first = pipeline.run(config(videos, tmp_path / "run"), until="clips")
    original = videos.rename(tmp_path / "original")
    shutil.copytree(original, videos, copy_function=shutil.copy)  # the same bytes, other times
    # A rerun keeps the list of its base, and cuts from the copy the clips that the base lacks.
    more = config(videos, tmp_path / "rerun", random_pool=14)
    rerun = pipeline.run(more, base=first, until="clips")
    assert failures(rerun) == []
    assert rerun.keys["videos"] == first.keys["videos"]
    assert rerun.keys["clips"] != first.keys["clips"]
    # A run lists the current folder.
    again = pipeline.run(config(videos, tmp_path / "run"), until="clips")
    assert failures(again) == []
    assert again.keys["videos"] != first.keys["videos"]
    assert again.table("clips").to_pylist() == first.table("clips").to_pylist()


@pytest.mark.full
def test_a_rerun_notices_the_one_file_that_was_replaced(videos: Path, tmp_path: Path) -> None:
    first = pipeline.run(config(videos, tmp_path / "run"), until="clips")
    name = one_with_clips(first)
    replace(videos, name)
    rerun = pipeline.run(config(videos, tmp_path / "rerun", context_blur=3.0), base=first, until="clips")
    assert failures(rerun) == [("clips", name, "changed")]
    assert name not in rerun.table("clips")["video_id"].to_pylist()


@pytest.mark.full
def test_storage_that_does_not_answer_leaves_no_row_and_the_next_run_is_whole(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk disappears after the listing and comes back."""
    monkeypatch.setattr(access, "PATIENCE_SECONDS", 0.1)
    settings = config(videos, tmp_path / "run")
    away = tmp_path / "away"
    with pytest.raises(EnvironmentFault, match="Mount their disk"):
        pipeline.run(settings, After("videos", lambda: videos.rename(away)), until="clips")
    assert failures(Run(settings.run_url)) == []
    away.rename(videos)
    assert failures(pipeline.run(settings, until="clips")) == []

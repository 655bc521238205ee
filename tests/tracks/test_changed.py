"""A file that is replaced after it was listed is noticed in `tracks` and in `clips`, and never cut wrongly."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.helpers.bad_server import BadServer
from tests.helpers.drawn import encode, numbered_frames, square_video
from tests.helpers.tracked_things import RedSquares
from vtcav_ray.clips.stage import STAGE as CLIPS
from vtcav_ray.config import Config, TracksConfig, VideosConfig
from vtcav_ray.config.loading import parse_config
from vtcav_ray.runs.stage import Context
from vtcav_ray.store.commits import ShardOutput, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.urls import ANY_ADDRESS, READ_LIMITS, ReadLimits
from vtcav_ray.tables import VIDEOS
from vtcav_ray.tracks.track import track_videos
from vtcav_ray.video.listed import Listed
from vtcav_ray.video.neighbours import neighbours_of, with_neighbours
from vtcav_ray.videos.listing import list_videos

NAMES = [f"{i:02d}.mp4" for i in range(12)]
FRAMES = 16


@functools.cache
def video(place: int, frames: int = FRAMES) -> bytes:
    return encode(square_video([(9.0 + place + 2 * i, 30.0) for i in range(frames)], seed=place)[0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder of twelve videos of two classes, some hours old."""
    where = tmp_path / "videos"
    where.mkdir()
    for i, name in enumerate(NAMES):
        (where / name).write_bytes(video(i))
        os.utime(where / name, (1_700_000_000 + i, 1_700_000_000 + i))
    labels = "".join(f"{name},{('lift', 'push_left')[i % 2]}\n" for i, name in enumerate(NAMES))
    (where / "labels.csv").write_text("video_id,label\n" + labels)
    return where


# The server is on this machine, where only URLs that a config names may lead.
ANY_HOST = {READ_LIMITS: ReadLimits(private=(ANY_ADDRESS,))}


def tracked(videos: pa.Table) -> tuple[pa.Table, dict[str, str]]:
    sources = list(with_neighbours(videos, neighbours_of(videos)).items())
    tracks, failures, _ = track_videos(sources, RedSquares(), TracksConfig(), storage_options=ANY_HOST)
    return tracks, kinds(failures)


def kinds(failures: Any) -> dict[str, str]:
    return {f.video_id: f.error_kind for f in failures}


def config(uri: str, **clips: Any) -> Config:
    return parse_config(
        {
            "videos": {"uri": uri, "private_addresses": True},
            "clips": {
                "frames": 8, "interval": 1, "size": 32, "per_class": 6, "min_per_class": 2, "per_concept": 12,
                "min_per_concept": 2, "random_pool": 12, "concepts": [{"name": "square", "object": "square"}], **clips,
            },
        }
    )  # fmt: skip


def cut(tmp_path: Path, videos: pa.Table, tracks: pa.Table) -> tuple[dict[str, bytes], dict[str, str]]:
    """Run the stage `clips`: return clip_id -> its encoded frames, and video -> kind of failure."""
    run = Folder(str(tmp_path / "run"))
    inputs = {}
    for name, table in (("videos", videos), ("tracks", tracks)):
        inputs[name] = stage_folder(run, name, "k")
        inputs[name].commit("all", ShardOutput({name: table}))
    work = CLIPS.prepare(Context(config("none"), run, inputs))
    worker = work.make_worker()
    clips: dict[str, bytes] = {}
    failures: dict[str, str] = {}
    for shard in work.shards:
        made = worker(shard.rows)
        clips |= dict(zip(made.tables["clips"]["clip_id"].to_pylist(), made.tables["clips"]["encoded"].to_pylist(),
                          strict=True))  # fmt: skip
        failures |= kinds(made.failures)
    return clips, failures


def of(video_id: str, clips: Mapping[str, bytes]) -> set[str]:
    return {clip for clip in clips if video_id in clip}


@pytest.mark.slow
def test_a_file_that_was_replaced_since_it_was_listed_has_no_tracks(folder: Path) -> None:
    videos, _ = list_videos(VideosConfig(uri=str(folder)))
    (folder / NAMES[3]).write_bytes(video(40))
    tracks, failed = tracked(videos)
    assert failed == {NAMES[3]: "changed"}
    assert set(tracks["video_id"].to_pylist()) == set(NAMES) - {NAMES[3]}


@pytest.mark.slow
def test_a_file_that_is_replaced_while_it_is_decoded_has_no_tracks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, _ = list_videos(VideosConfig(uri=str(folder)))
    real = RedSquares.letterbox

    def replacing(self: RedSquares, frame: np.ndarray) -> np.ndarray:
        os.utime(folder / NAMES[5], (1_800_000_000, 1_800_000_000))
        return real(self, frame)

    monkeypatch.setattr(RedSquares, "letterbox", replacing)
    assert tracked(videos)[1] == {NAMES[5]: "changed"}


@pytest.mark.slow
def test_no_clip_is_cut_from_a_file_that_was_replaced_since_it_was_tracked(folder: Path, tmp_path: Path) -> None:
    videos, _ = list_videos(VideosConfig(uri=str(folder)))
    tracks, _ = tracked(videos)
    before, failed = cut(tmp_path / "before", videos, tracks)
    assert failed == {}
    assert of(NAMES[2], before)
    (folder / NAMES[2]).write_bytes(video(40))
    after, failed = cut(tmp_path / "after", videos, tracks)
    assert failed == {NAMES[2]: "changed"}
    assert after == {clip: frames for clip, frames in before.items() if clip not in of(NAMES[2], before)}


@pytest.mark.slow
def test_another_file_of_the_same_size_is_noticed(folder: Path, tmp_path: Path) -> None:
    videos, _ = list_videos(VideosConfig(uri=str(folder)))
    tracks, _ = tracked(videos)
    data = (folder / NAMES[2]).read_bytes()
    (folder / NAMES[2]).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert cut(tmp_path, videos, tracks)[1] == {NAMES[2]: "changed"}


@pytest.mark.slow
def test_a_link_to_a_file_that_was_replaced_is_noticed(folder: Path, tmp_path: Path) -> None:
    real = tmp_path / "real.mp4"
    real.write_bytes(video(30))
    os.utime(real, (1_700_000_000, 1_700_000_000))
    (folder / "link.mp4").symlink_to(real)
    videos, _ = list_videos(VideosConfig(uri=str(folder), follow_links=True))
    assert tracked(videos)[1] == {}
    os.utime(real, (1_700_000_001, 1_700_000_001))
    assert tracked(videos)[1] == {"link.mp4": "changed"}


@pytest.mark.slow
def test_a_copy_of_the_whole_folder_is_no_change(folder: Path, tmp_path: Path) -> None:
    """On another node's disk, or after unpacking an archive, all files have another time, and the list stays valid."""
    videos, _ = list_videos(VideosConfig(uri=str(folder)))
    tracks, _ = tracked(videos)
    before, _ = cut(tmp_path / "before", videos, tracks)
    shutil.move(folder, tmp_path / "original")
    shutil.copytree(tmp_path / "original", folder, copy_function=shutil.copy)
    assert tracked(videos)[1] == {}
    assert cut(tmp_path / "after", videos, tracks) == (before, {})
    # A file that was replaced in the copy has another size.
    (folder / NAMES[7]).write_bytes(video(40))
    assert cut(tmp_path / "replaced", videos, tracks)[1] == {NAMES[7]: "changed"}


@pytest.mark.slow
def test_a_video_that_no_listing_knows_is_held_against_its_tracks(folder: Path, tmp_path: Path) -> None:
    with BadServer(folder) as server:
        empty = dict.fromkeys(VIDEOS.names)
        rows = [
            empty | {"video_id": name, "uri": f"{server.url}/{name}", "label": ("lift", "push_left")[i % 2]}
            for i, name in enumerate(NAMES)
        ]
        (folder / NAMES[1]).write_bytes(broken(video(1)))
        videos = pa.Table.from_pylist(rows, schema=VIDEOS)
        tracks, failed = tracked(videos)
        assert failed == {}
        assert tracks.filter(pc.equal(tracks["video_id"], NAMES[1]))["num_frames"][0].as_py() < FRAMES
        before, failed = cut(tmp_path / "before", videos, tracks)
        assert failed == {}  # frames that don't decode are not a change of the file
        assert of(NAMES[1], before)
        (folder / NAMES[2]).write_bytes(video(2, FRAMES + 1))
        (folder / NAMES[4]).write_bytes(encode(numbered_frames(FRAMES)))  # of another size
        after, failed = cut(tmp_path / "after", videos, tracks)
        assert failed == {NAMES[2]: "changed", NAMES[4]: "changed"}
        assert set(after) == set(before) - of(NAMES[2], before) - of(NAMES[4], before)


def broken(data: bytes) -> bytes:
    """Return the file with bytes that don't decode in the middle of its pictures."""
    middle = len(data) // 2
    return data[:middle] + b"\xff" * 200 + data[middle + 200 :]


@pytest.mark.slow
def test_nothing_is_asked_about_bytes_and_plain_uris(folder: Path) -> None:
    sources = [
        ("a", (folder / NAMES[0]).read_bytes()),
        ("b", str(folder / NAMES[1])),
        ("c", Listed(str(folder / NAMES[2]))),
    ]
    tracks, failures, _ = track_videos(sources, RedSquares(), TracksConfig(), storage_options=ANY_HOST)
    assert list(failures) == []
    assert set(tracks["video_id"].to_pylist()) == {"a", "b", "c"}

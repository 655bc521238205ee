"""A whole run on long files: planted clips in a row, of which a manifest gives the times and the labels."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import vtcav_ray
from tests.helpers.drawn import encode
from tests.helpers.planted_run import QUICKSTART
from tests.helpers.small_runs import ONE_ACTOR_A_STAGE, without_ray
from vtcav_ray import pipeline
from vtcav_ray.config import Config
from vtcav_ray.config.loading import load_config
from vtcav_ray.planning.dry_run import check
from vtcav_ray.planning.survey import survey
from vtcav_ray.runs.run import Run
from vtcav_ray.video.decode import Video, decode_frames
from vtcav_ray.why import explain_videos
from vtcav_ray.why.page import verdict
from vtcav_ray.why.subjects import read_answers
from vtcav_ray.world import write_world

pytestmark = pytest.mark.slow

FILES, PER_FILE, REST = 24, 3, 1.0  # seconds of grey between two segments
SMALL = [
    *ONE_ACTOR_A_STAGE,
    "shard_videos=8",
    "tracks.frame_stride=2",
    "clips.per_class=3",
    "clips.min_per_class=2",
    "clips.per_concept=5",
    "clips.min_per_concept=3",
    "clips.random_pool=12",
    "clips.concepts=[{name: moving up, motion: {direction: up}, kinds: [context]}, "
    "{name: cup, object: cup, kinds: [spatial, spatiotemporal], controls: [frozen]}]",
    "activations.layers=[middle, late]",
    "cavs.random_sets=4",
    "scores.permutations=200",
    "scores.bootstrap=100",
]


def write_long_files(folder: Path) -> Path:
    """Write files of several clips of the planted world; return the manifest of their segments."""
    write_world(str(folder / "world"), videos=FILES * PER_FILE, seed=0, size=(80, 80))
    world = pq.read_table(folder / "world" / "videos.parquet").to_pylist()
    lines = ["uri,start,end,label"]
    for number in range(FILES):
        frames, times, now = [], [], 0.0
        for row in world[number::FILES]:
            clip, info = decode_frames(folder / "world" / row["uri"])
            start = now
            frames += list(clip)
            times += [round(1000 * (now + i / info.fps)) for i in range(len(clip))]
            now += len(clip) / info.fps
            lines.append(f"long{number:02d}.mp4,{start:.3f},{now:.3f},{row['label']}")
            frames.append(np.full_like(clip[0], 90))
            times.append(round(1000 * now))
            now += REST
        options = {"crf": "10", "preset": "ultrafast", "g": "12"}
        size = frames[0].shape
        assert all(frame.shape == size for frame in frames)
        (folder / f"long{number:02d}.mp4").write_bytes(encode(np.stack(frames), pts=times, options=options))
    (folder / "segments.csv").write_text("\n".join(lines) + "\n")
    return folder / "segments.csv"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("long")
    manifest = write_long_files(folder)
    return load_config(QUICKSTART, [*SMALL, f"videos={{uri: '{manifest}'}}"], out=str(folder / "run"))


@pytest.fixture(scope="module")
def run(config: Config) -> Run:
    with without_ray():
        return vtcav_ray.run(config)


@pytest.mark.full
def test_checks_before_a_run_count_source_videos_and_segments(config: Config) -> None:
    found = {one.subject: one for one in check(config).checks}
    assert f"{FILES} source videos with {FILES * PER_FILE} segments" in found["videos"].message
    looked = survey(str(config.videos.uri))
    assert (looked.videos, looked.segments) == (FILES, FILES * PER_FILE)
    assert any("segments" in sentence for sentence in looked.sentences)


def test_the_unit_is_the_file_in_every_stage(run: Run) -> None:
    """Held-out splits, random sets, the reference set and the bootstrap group rows by `video_id`: the file."""
    assert run.table("failures").num_rows == 0
    files = {f"long{i:02d}.mp4" for i in range(FILES)}
    served = defaultdict(set)
    for row in run.table("clips", columns=["set", "name", "video_id"]).to_pylist():
        served[row["video_id"]].add(row["name"] if row["set"] == "class" else row["set"])
    assert set(served) <= files
    assert all(len(some) == 1 for some in served.values())
    for layer in run.config.activations.layers:
        assert set(run.table("activations", columns=["video_id"], layer=layer)["video_id"].to_pylist()) <= files
        gradients = run.table("gradients", columns=["video_id", "reference"], layer=layer).to_pylist()
        assert {row["video_id"] for row in gradients if row["reference"]} <= files
    for row in run.table("scores").to_pylist():
        assert row["n"] == len([video for video, some in served.items() if some == {row["class"]}])
        assert row["n_concept"] <= sum(some == {"concept"} for some in served.values())
        assert row["n_random"] <= sum(len(some & {"concept", "random"}) for some in served.values())
    videos = run.table("sensitivities", columns=["video_id"])["video_id"].to_pylist()
    assert set(videos) == {video for video, some in served.items() if not some & {"concept", "random"}}


def test_clips_show_their_segment(run: Run) -> None:
    """The recogniser knows motion alone, and the next segment shows another: frames of two would be misclassified."""
    ranges = defaultdict(list)
    for row in pq.read_table(next(Path(run.config.run_url).glob("tracks/*/segments"))).to_pylist():
        ranges[row["video_id"]].append((row["first"], row["last"]))
    clips = run.table("clips", columns=["clip_id", "set", "name", "video_id", "label", "frames"]).to_pylist()
    for row in clips:
        inside = [a <= min(row["frames"]) and max(row["frames"]) <= b for a, b in ranges[row["video_id"]]]
        assert sum(inside) == 1
    answers = run.table("answers", columns=["clip_id", "set", "name", "predicted"]).to_pylist()
    examples = [row for row in answers if row["set"] == "class"]
    assert len(examples) >= 8
    assert np.mean([row["name"] == row["predicted"] for row in examples]) > 0.9


def test_a_segment_is_explained_by_its_name(run: Run) -> None:
    video = next(iter(read_answers(run)))
    named = next(row for row in run.table("videos").to_pylist() if row["video_id"] != video)
    start, end = named["segments"][1]["start"], named["segments"][1]["end"]
    name = f"{named['video_id']}@{start:.3f}".rstrip("0").rstrip(".") + f"-{end:.3f}".rstrip("0").rstrip(".")
    found = explain_videos(run, run.config, [video, name, f"{named['video_id']}@7-8"])
    by_video = {one.video: one for one in found.explanations}
    assert set(by_video) == {video, name}
    assert by_video[name].label == named["segments"][1]["label"]
    assert "which is right" in verdict(by_video[name])
    assert [failed for failed, _ in found.failures] == [f"{named['video_id']}@7-8"]


def test_a_second_run_computes_nothing_again(run: Run, config: Config) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(config.run_url).glob("*/*/*/*.parquet")}
    with without_ray():
        vtcav_ray.run(config)
    assert {path: path.stat().st_mtime_ns for path in Path(config.run_url).glob("*/*/*/*.parquet")} == before
    assert len(before) > 10


def write_tracks(run: Run, file: Path) -> None:
    """Write the tracks of a run as a person's own."""
    rows = []
    for track in run.table("tracks").to_pylist():
        about = {name: track[name] for name in ("video_id", "track_id", "label")}
        for frame, box, confidence in zip(track["frames"], track["boxes"], track["confidence"], strict=True):
            sides = dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))
            rows.append({**about, **sides, "frame": frame, "confidence": confidence})
    pq.write_table(pa.Table.from_pylist(rows), file)


@pytest.mark.full
def test_own_tracks_and_own_clips_of_the_segments_of_long_files(run: Run, config: Config, tmp_path: Path) -> None:
    write_tracks(run, tmp_path / "tracks.parquet")
    sources = [f"long{i:02d}.mp4" for i in range(4)]
    parts = [row for row in run.table("videos").to_pylist() if row["video_id"] in sources]
    times = {row["uri"]: (row["segments"][1]["start"], row["segments"][1]["end"]) for row in parts}
    lines = [f"{uri},{start},{end}" for uri, (start, end) in times.items()]
    (tmp_path / "own.csv").write_text("\n".join(["uri,start,end", *lines, f"{parts[0]['uri']},800,900"]))
    concepts = (
        f"clips.concepts=[{{name: cup, object: cup, kinds: [spatial]}}, {{name: mine, clips: {tmp_path}/own.csv}}]"
    )
    tracks = f"tracks={{source: '{tmp_path}/tracks.parquet', format: parquet}}"
    wanted = [*SMALL, f"videos={{uri: '{config.videos.uri}'}}", concepts, tracks, "clips.quality.max_clips_per_video=2"]
    with without_ray():
        own = pipeline.run(load_config(QUICKSTART, wanted, out=str(tmp_path / "run")), until="clips")
    (failed,) = own.table("failures").to_pylist()
    assert (failed["error_kind"], failed["video_id"]) == ("segment", "long00.mp4")
    clips = own.table("clips").to_pylist()
    mine = [row for row in clips if row["name"] == "mine" and row["kind"] == "given"]
    assert {row["video_id"] for row in mine} == set(sources)
    seconds = {path: Video(path).frame_seconds() for path in times}
    for row in mine:
        uri = next(one["uri"] for one in parts if one["video_id"] == row["video_id"])
        start, end = times[uri]
        shown = seconds[uri][row["frames"]]
        assert start - 1e-3 <= shown.min()
        assert shown.max() < end
    # The source of an own clip serves nothing else, and its random clips are segments of other files.
    assert not {row["video_id"] for row in clips if row["name"] != "mine"} & set(sources)
    assert [row["name"] for row in clips if row["name"] == "random/mine/given"]
    # The same tracks give the same clips of their objects.
    before = {row["clip_id"]: row["encoded"] for row in run.table("clips").to_pylist()}
    again = [row for row in clips if row["track_id"] is not None and row["clip_id"] in before]
    assert {row["set"] for row in again} == {"concept", "random"}
    assert all(row["encoded"] == before[row["clip_id"]] for row in again)

"""Two files of the same video count as one source video. The shards run in this process, without Ray."""

from __future__ import annotations

import io
import math
import time
from collections import defaultdict
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pytest

import vtcav_ray
from tests.helpers.class_folders import class_folders
from tests.helpers.drawn import encode, square_video
from tests.helpers.small_runs import run_here
from tests.helpers.tracked_things import RedSquares, videos_table
from vtcav_ray import engine
from vtcav_ray.clips.classes import draw
from vtcav_ray.config import QualityConfig, TracksConfig
from vtcav_ray.config.loading import load_config
from vtcav_ray.runs.run import Run
from vtcav_ray.tracks.copies import NUMBERS, SIGNATURES, Pictures, copies_among, find_copies, signature_table
from vtcav_ray.tracks.track import track_videos
from vtcav_ray.video.decode import iter_frames

DISTANCE = QualityConfig().copy_distance
assert DISTANCE is not None
QUICKSTART = str(Path(__file__).parents[2] / "configs" / "quickstart.yaml")
SMALL = [
    "tracks.frame_stride=2",
    "clips.per_class=4",
    "clips.min_per_class=2",
    "clips.per_concept=6",
    "clips.min_per_concept=4",
    "clips.random_pool=12",
    "clips.concepts=[{name: cup, object: cup, kinds: [spatial, spatiotemporal], controls: [frozen]}]",
]
WAYS = {
    "right": [(20 + 8 * t, 60) for t in range(24)],
    "left": [(20 + 8 * t, 60) for t in reversed(range(24))],
    "down": [(120, 10 + 7 * t) for t in range(24)],
    "lower": [(20 + 8 * t, 140) for t in range(24)],
    "to and fro": [(110 + round(80 * math.sin(t / 3.8)), 60) for t in range(24)],
    "still": [(120, 80)] * 24,
}


def drawing(way: str, seed: int = 0) -> np.ndarray:
    """Draw a white square: a red one is as bright as the ground, and signatures are grey."""
    frames, _ = square_video(WAYS[way], side=40, height=240, width=320, seed=seed)
    frames[frames[..., 0] > 200] = 255
    return frames


def again(frames: np.ndarray, *, scale: float = 1.0, every: int = 1, codec: str = "mpeg4", **options: str) -> bytes:
    """Return the frames of another file of the same video: scaled, thinned out, coded badly."""
    height, width = (round(side * scale) // 2 * 2 for side in frames.shape[1:3])
    small = [cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in frames[::every]]
    return encode(np.stack(small), codec=codec, options=options)


def barred(frames: np.ndarray) -> np.ndarray:
    return np.pad(frames, ((0, 0), (40, 40), (0, 0), (0, 0)))


def signatures_of(videos: dict[str, bytes]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    _, failures, _ = track_videos(list(videos.items()), RedSquares(), TracksConfig(), signatures=found)
    assert not failures
    assert found.keys() == videos.keys()
    return found


@pytest.mark.full
def test_copies_are_near_and_strangers_are_far_even_on_one_background() -> None:
    drawn = {way: drawing(way) for way in WAYS}  # one background for all
    drawn["elsewhere"] = drawing("right", seed=1)
    original = signatures_of({name: encode(frames) for name, frames in drawn.items()})
    changed = {
        "coded badly": lambda f: again(f, codec="libx264", crf="35"),
        "another codec, half the size": lambda f: again(f, scale=0.5, qscale="8"),
        "half the frames": lambda f: again(f, every=2),
        "brighter, less contrast": lambda f: encode((f * 0.8 + 40).astype(np.uint8)),
        "black bars": lambda f: encode(barred(f)),
    }
    for how, change in changed.items():
        copies = signatures_of({name: change(frames) for name, frames in drawn.items()})
        for name, copy in copies.items():
            apart = {other: float(np.linalg.norm(copy - vector)) for other, vector in original.items()}
            assert apart[name] <= DISTANCE, (how, name, apart[name])
            others = {other: d for other, d in apart.items() if other != name}
            assert min(others.values()) > DISTANCE, (how, name, others)


@pytest.mark.slow
def test_a_long_video_keeps_few_pictures_and_the_same_signature() -> None:
    rng = np.random.default_rng(0)
    ground = cv2.resize(rng.uniform(40, 200, (9, 16)), (160, 90), interpolation=cv2.INTER_CUBIC)

    def seen(count: int) -> Pictures:
        pictures = Pictures()
        for i in range(count):
            frame = ground.copy()
            place = round(130 * i / count)
            frame[20:60, place : place + 30] = 255
            pictures.add(np.clip(frame, 0, 255).astype(np.uint8))
        return pictures

    short, long = seen(100), seen(20_000)
    assert len(long._kept) < 128
    assert np.linalg.norm(short.signature() - long.signature()) < 0.05


def test_black_pictures_have_a_signature() -> None:
    pictures = Pictures()
    pictures.add(np.zeros((90, 160), np.uint8))
    assert np.array_equal(pictures.signature(), np.zeros(NUMBERS, np.float32))


def table_of(signatures: dict[str, list[float]]) -> pa.Table:
    return signature_table({v: np.array([*s, *[0] * (NUMBERS - len(s))], np.float32) for v, s in signatures.items()})


def test_the_labelled_and_then_the_first_is_kept_and_no_chain_is_followed() -> None:
    videos = videos_table({"a": None, "b": "lift", "c": "lift", "d": None, "e": "lift", "f": "lift", "no frames": None})
    tables = [
        table_of({"a": [0.0], "b": [0.1], "c": [0.2]}),
        table_of({"d": [0.0, 1.0], "f": [0.35]}),
        table_of({"e": [0.0, 0.5]}),
    ]
    assert tables[0].schema == SIGNATURES
    # `f` is near `c`, but `c` is a copy itself, and the kept `b` is farther from `f`.
    assert copies_among(videos, tables, 0.2) == {"a": "b", "c": "b"}
    assert copies_among(videos, tables[::-1], 0.2) == {"a": "b", "c": "b"}
    assert copies_among(videos, tables, 0.0) == {}
    assert copies_among(videos, [*tables, table_of({"g": [0.1]})], 0.0) == {"g": "b"}
    assert copies_among(videos, [], 0.2) == {}


@pytest.mark.slow
def test_many_videos_are_compared_in_time_that_is_not_quadratic() -> None:
    """Compare 20,000 unrelated videos, 2,000 files of one video, and a copy of every tenth unrelated video."""
    rng = np.random.default_rng(0)
    # Real signatures also lie near a space of few dimensions.
    strangers = rng.normal(size=(20_000, 16)) @ rng.normal(size=(16, NUMBERS))
    strangers /= np.linalg.norm(strangers, axis=1, keepdims=True)
    copies = strangers[::10] + rng.normal(scale=0.05 / NUMBERS**0.5, size=(2_000, NUMBERS))
    vectors = np.concatenate((strangers, np.repeat(strangers[:1], 2_000, axis=0), copies)).astype(np.float32)
    ids = [str(i) for i in range(len(vectors))]
    began = time.process_time()
    found = find_copies(ids, vectors, 0.2)
    assert time.process_time() - began < 60
    same = {str(i): "0" for i in range(20_000, 22_000)}
    assert found == same | {str(22_000 + i): str(10 * i) for i in range(2_000)}


# End to end: a folder of videos, a run, and the same run after some of them were uploaded again.


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "run_shards", run_here)
    monkeypatch.setattr(engine.LazySession, "start", lambda self: None)


def uploaded_again(original: Path, copy: Path) -> None:
    """Write the video with another codec, half the size, in another container."""
    frames = np.stack([frame for _, frame in iter_frames(str(original))])
    copy.parent.mkdir(exist_ok=True)
    copy.write_bytes(again(frames, scale=0.6, qscale="8"))
    with av.open(io.BytesIO(copy.read_bytes())) as file:
        assert file.streams.video[0].codec_context.name == "mpeg4"


def uses(run: Run) -> dict[str, set[str]]:
    """Return the source videos of each set."""
    found: dict[str, set[str]] = defaultdict(set)
    for row in run.table("clips", columns=["set", "video_id"]).to_pylist():
        found[row["set"]].add(row["video_id"])
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("without_ray")
def test_what_was_uploaded_again_is_found_dropped_and_counted(tmp_path: Path) -> None:
    videos = class_folders(tmp_path, 34)

    def run(*more: str) -> Run:
        config = load_config(QUICKSTART, [*SMALL, f"videos={{uri: '{videos}'}}", *more], out=str(tmp_path / "run"))
        return vtcav_ray.run(config, until="clips")

    before = run()
    assert before.manifest("clips")["notes"]["plan"]["videos"]["copies"] == 0
    assert before.manifest("clips")["metrics"]["copies"] == 0
    assert before.stage("clips").read("copies") is None
    # Copy one concept source as a class example and another as a random clip, under names that the draw prefers. Both
    # copies have another label. Of equal videos, the first by name is kept.
    sources = sorted(uses(before)["concept"])
    source, other = (next(v for v in sources if v.startswith(label)) for label in ("lift", "push_right"))
    example = min((f"push_left/zz{i}.mp4" for i in range(400)), key=lambda v: draw(0, "class", v))
    names = [f"put_down/zz{i}.mp4" for i in range(4000)]
    late = [v for v in names if min(draw(0, "class", v), draw(0, "concept/cup", v)) > 0.9]  # drawn as neither
    by_chance = min(late, key=lambda v: draw(0, "random", v))
    copies = {example: source, by_chance: other}
    for copy, original in copies.items():
        uploaded_again(videos / original, videos / copy)

    unseen = run("clips.quality.copy_distance=null")
    assert unseen.manifest("clips")["metrics"]["copies"] == 0
    assert example in uses(unseen)["class"]  # wrong: the class is scored on the concept's own source
    assert source in uses(unseen)["concept"]
    assert by_chance in uses(unseen)["random"]

    found = run()
    manifest = found.manifest("clips")
    listed = found.stage("clips").read("copies")
    assert listed is not None
    assert {r["video_id"]: r["repeats"] for r in listed.to_pylist()} == copies
    assert manifest["rows"]["copies"] == manifest["metrics"]["copies"] == 2
    assert manifest["notes"]["plan"]["videos"]["copies"] == 2
    assert sum(manifest["notes"]["plan"]["videos"].values()) == 36
    (reported,) = (w for w in manifest["warnings"] if "copies" in w)
    assert reported.startswith(
        "2 of 36 videos are copies of another one (clips.quality.copy_distance) and give no clips"
    )
    assert f"{example} repeats {source}" in reported
    assert "2 of them have another label" in reported
    # Videos with one file serve as before, including twins and controls of one video.
    columns = ["clip_id", "video_id", "encoded"]
    assert found.table("clips", columns=columns).equals(before.table("clips", columns=columns))

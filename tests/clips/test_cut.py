from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.drawn import encode, number_of, numbered_frames
from tests.helpers.tracked_things import track_row, tracks_table, videos_table
from vtcav_ray.clips import cut
from vtcav_ray.clips.cut import cut_clips
from vtcav_ray.clips.duplicates import alike, appearance_of, looks_of, near_duplicates
from vtcav_ray.clips.plan_table import PLAN
from vtcav_ray.clips.select import plan_clips
from vtcav_ray.config import ClipsConfig, ConceptConfig
from vtcav_ray.tables import CLIPS
from vtcav_ray.video.codec import decode_clip, encode_clip
from vtcav_ray.video.decode import Video

CONFIG = ClipsConfig(frames=8, interval=2, size=32)
BOXES = [(0.0, 0.0, 96.0, 64.0)] * 8


def row(kind: str, video_id: str = "v", **changes: Any) -> dict[str, Any]:
    base = {
        "clip_id": f"{kind}/{video_id}",
        "set": "concept",
        "name": "cup",
        "kind": kind,
        "video_id": video_id,
        "uri": f"/nowhere/{video_id}",
        "label": "lift",
        "object": "cup",
        "motion": "up",
        "track_id": 1,
        "frames": list(range(10, 26, 2)),
        "boxes": BOXES,
        "control_of": None,
        "pick": 3,
        "view": 0,
        "seed": 7,
    }
    return {**base, **changes}


def full(video_id: str = "v", **changes: Any) -> dict[str, Any]:
    return row("full", video_id, set="class", frames=None, boxes=None, object=None, track_id=None, **changes)


def plan_of(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=PLAN)


@pytest.fixture(scope="module")
def video() -> bytes:
    return encode(numbered_frames(60))


def clips_of(table: pa.Table) -> dict[str, np.ndarray]:
    return {r["clip_id"]: decode_clip(r["encoding"], r["encoded"]) for r in table.to_pylist()}


def test_every_clip_shows_the_frames_that_it_names(video: bytes) -> None:
    kinds = ("spatial", "spatiotemporal", "tracked", "context", "frozen", "shuffled", "reversed")
    table, failures = cut_clips(plan_of(*(row(k) for k in kinds), full()), {"v": video}, CONFIG)
    assert failures == []
    assert table.schema == CLIPS
    clips = clips_of(table)
    for r in table.to_pylist():
        clip = clips[r["clip_id"]]
        assert clip.shape == (8, r["height"], r["width"], 3)
        assert r["num_frames"] == len(r["frames"]) == 8
        if r["kind"] in ("context", "full"):
            assert (r["height"], r["width"]) == (32, 48)
            assert [number_of(f) for f in clip] == r["frames"]
        assert r["boxes"] is None or len(r["boxes"]) == 8
    frames = {r["kind"]: r["frames"] for r in table.to_pylist()}
    assert frames["spatial"] == frames["frozen"] == [16] * 8
    assert frames["reversed"] == frames["tracked"][::-1]
    assert frames["full"] == list(range(22, 38, 2))  # the centre of 60 frames


def test_each_video_is_opened_once_and_only_needed_frames_are_kept(
    video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    class Counting(Video):
        def __init__(self, source: Any, **options: Any) -> None:
            opened.append(source)
            super().__init__(source, **options)

    monkeypatch.setattr(cut, "Video", Counting)
    rows = [row(k, v) for v in ("a", "b") for k in ("spatial", "context", "tracked")]
    table, _ = cut_clips(plan_of(*rows), {"a": video, "b": video}, CONFIG)
    assert len(opened) == 2
    assert table["clip_id"].to_pylist() == [r["clip_id"] for r in rows]


def test_random_full_frames_are_seeded(video: bytes) -> None:
    rows = [full(clip_id=f"random/{s}", seed=s) | {"set": "random", "kind": "context"} for s in range(6)]
    one, _ = cut_clips(plan_of(*rows), {"v": video}, CONFIG)
    again, _ = cut_clips(plan_of(*rows), {"v": video}, CONFIG)
    assert one.equals(again)
    assert len({tuple(f) for f in one["frames"].to_pylist()}) > 3


def test_views_of_a_class_video_are_spread_over_it(video: bytes) -> None:
    rows = [full(clip_id=f"class/lift/v#{view}", view=view) for view in range(3)]
    table, failures = cut_clips(plan_of(*rows), {"v": video}, CONFIG.model_copy(update={"class_views": 3}))
    assert failures == []
    assert [frames[0] for frames in table["frames"].to_pylist()] == [0, 22, 45]
    for r in table.to_pylist():
        assert [number_of(f) for f in clips_of(table)[r["clip_id"]]] == r["frames"]


def test_bad_videos_and_bad_clips_fail_alone(video: bytes) -> None:
    short = encode(numbered_frames(3))
    beyond = row("context", frames=list(range(50, 66, 2)), clip_id="beyond/v")
    rows = plan_of(row("context", "text"), full("short"), beyond, row("context"), row("context", "gone"))
    table, failures = cut_clips(rows, {"v": video, "text": b"no video" * 20, "short": short}, CONFIG)
    assert table["clip_id"].to_pylist() == ["context/v"]
    found = {(f.video_id, f.clip_id, f.error_kind) for f in failures}
    assert found == {
        ("text", None, "not_video"),
        ("short", "full/short", "too_short"),
        ("v", "beyond/v", "too_short"),
        ("gone", None, "missing"),
    }


def test_a_video_shorter_than_a_clip_is_looped() -> None:
    table, failures = cut_clips(plan_of(full()), {"v": encode(numbered_frames(6))}, CONFIG)
    assert failures == []
    assert table["frames"].to_pylist()[0] == [0, 2, 4, 0, 2, 4, 0, 2]


@pytest.mark.slow
def test_plan_and_cut_fit_together(tmp_path: Path) -> None:
    concept = ConceptConfig(name="cup", object="cup", kinds=("spatial", "spatiotemporal", "tracked", "context"))
    small = ClipsConfig(
        frames=8,
        interval=2,
        size=32,
        per_class=2,
        min_per_class=2,
        per_concept=3,
        min_per_concept=3,
        random_pool=5,
        concepts=(concept,),
    )
    labels = {f"{i}.mp4": "ab"[i % 2] for i in range(16)}
    data = encode(numbered_frames(40, 100, 200))
    videos = videos_table(labels)
    for name in labels:
        (tmp_path / name).write_bytes(data)
    plan = plan_clips(videos, [tracks_table([track_row(v) for v in labels])], [], small, 0)
    sources = {v: str(tmp_path / v) for v in labels}
    table, failures = cut_clips(plan.rows, sources, small)
    assert failures == []
    assert table["clip_id"].to_pylist() == plan.rows["clip_id"].to_pylist()
    controls = {"frozen", "shuffled", "reversed", "padding"}
    assert set(table["kind"].to_pylist()) == {"full", "spatial", "spatiotemporal", "tracked", "context"} | controls


def drawn_clip(seed: int, noise: float = 0.0) -> np.ndarray:
    """Draw soft shapes, different for each seed: uint8 [4, 40, 40, 3]."""
    coarse = np.random.default_rng(seed).uniform(20, 230, (7, 7, 3))
    fine = cv2.resize(coarse, (40, 40), interpolation=cv2.INTER_CUBIC)[None].repeat(4, 0)
    return np.clip(fine + np.random.default_rng(99).normal(0, noise, fine.shape), 1, 255).astype(np.uint8)


def test_near_duplicates_are_found_and_strangers_are_not() -> None:
    first = appearance_of(drawn_clip(0))
    assert alike(first, appearance_of(drawn_clip(0, noise=4)), 8)
    padded = np.zeros((4, 60, 60, 3), np.uint8)
    padded[:, 10:50, 10:50] = drawn_clip(0)
    assert alike(first, appearance_of(padded), 8)
    assert not any(alike(first, appearance_of(drawn_clip(s)), 8) for s in range(1, 60))
    assert not alike(first, appearance_of(np.clip(drawn_clip(0).astype(int) + 60, 0, 255).astype(np.uint8)), 8)


def clip_row(clip_id: str, clip: np.ndarray, **changes: Any) -> dict[str, Any]:
    encoding, encoded = encode_clip(clip)
    base = {"clip_id": clip_id, "set": "concept", "name": "cup", "kind": "spatiotemporal", "num_frames": len(clip)}
    return {**base, "encoding": encoding, "encoded": encoded, **changes}


def test_views_of_one_class_video_repeat_nothing_but_those_of_a_copy_do() -> None:
    about = {"set": "class", "name": "lift", "kind": "full"}
    rows = [
        clip_row(f"class/lift/{video}#{view}", drawn_clip(0, noise=view), video_id=video, **about)
        for video in ("v", "copy of v") for view in range(2)
    ]  # fmt: skip
    found = near_duplicates([looks_of(pa.Table.from_pylist(rows, schema=CLIPS))], 8)
    assert set(found) == {"class/lift/v#0", "class/lift/v#1"}
    assert set(found.values()) == {"class/lift/copy of v#0"}


def test_duplicates_are_found_within_their_set_over_all_shards() -> None:
    rows = [
        clip_row("a", drawn_clip(0)),
        clip_row("b", drawn_clip(0, noise=3)),
        clip_row("c", drawn_clip(1)),
        clip_row("a/random", drawn_clip(0), set="random", name="random/spatiotemporal"),
        clip_row("a/frozen", drawn_clip(0), kind="frozen", control_of="a"),
        clip_row("b/frozen", drawn_clip(5), kind="frozen", control_of="b"),
    ]
    looks = [looks_of(pa.Table.from_pylist([row], schema=CLIPS)) for row in reversed(rows)]
    assert near_duplicates(looks, 8) == {"b": "a"}  # a control has no separate look
    assert near_duplicates(looks, 0).keys() <= {"b"}

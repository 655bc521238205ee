"""Segments, several labels and source videos in the plan: the source video is the unit, whatever it is made of."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.drawn import encode, number_of, numbered_frames
from tests.helpers.tracked_things import track_row, tracks_table
from vtcav_ray.clips.corpus import Corpus
from vtcav_ray.clips.cut import cut_clips
from vtcav_ray.clips.plan_table import PLAN, SEGMENT
from vtcav_ray.clips.select import SEGMENTS_A_VIDEO, ClipPlan, plan_clips
from vtcav_ray.config import ClipsConfig, ConceptConfig
from vtcav_ray.tables import SEGMENTS, VIDEO_OPTIONS, VIDEOS
from vtcav_ray.text.label_sets import has_label, join_labels, split_labels
from vtcav_ray.text.name_lists import NameIndex
from vtcav_ray.video.codec import decode_clip

CUP = ConceptConfig(name="cup", object="cup", kinds=("spatial", "spatiotemporal"), controls=("frozen",))
ANY = ConceptConfig(name="anything", kinds=("context",))
LABELS = ("goal", "corner", "throw in")
FPS, SECONDS = 25, 2.0  # of each segment


def config(**changes: Any) -> ClipsConfig:
    small = {"frames": 8, "interval": 2, "size": 32, "per_class": 4, "min_per_class": 2, "per_concept": 6,
             "min_per_concept": 3, "random_pool": 30, "concepts": (CUP, ANY)}  # fmt: skip
    return ClipsConfig(**{**small, **changes})


def videos(rows: list[dict[str, Any]]) -> pa.Table:
    rows = [{"uri": f"/videos/{row['video_id']}", **row} for row in rows]
    used = [field for field in VIDEO_OPTIONS if any(row.get(field.name) is not None for row in rows)]
    return pa.Table.from_pylist(rows, schema=pa.schema([*VIDEOS, *used]))


@cache
def matches(count: int, per_file: int = 6) -> tuple[pa.Table, list[pa.Table], pa.Table]:
    """Make long files. Each has segments of all labels, 10 s apart, and in each segment a cup."""
    rows, tables, found = [], [], []
    for i in range(count):
        name = f"match{i:03d}.mp4"
        parts = [(10.0 * k, 10.0 * k + SECONDS, LABELS[(i + k) % 3]) for k in range(per_file)]
        segments = [{"start": start, "end": end, "label": label} for start, end, label in parts]
        rows.append({"video_id": name, "label": join_labels(label for *_, label in parts), "segments": segments})
        tracks = []
        for k, (start, end, _) in enumerate(parts):
            first = int(start * FPS)
            found.append({"video_id": name, "start": start, "end": end, "first": first, "last": first + 49})
            tracks.append(track_row(name, k + 1, "cup", n=50, frames=first + np.arange(50), num_frames=2000))
        tables.append(tracks_table(tracks))
    return videos(rows), tables, pa.Table.from_pylist(found, schema=SEGMENTS)


@cache  # several tests read the same plan
def plan_matches(count: int, seed: int = 0, **changes: Any) -> ClipPlan:
    table, tracks, segments = matches(count)
    return plan_clips(table, iter(tracks), [], config(**changes), seed, segments=segments)


def uses(plan: ClipPlan) -> dict[str, set[str]]:
    """Return video -> the sets, and for class examples the classes, that it serves."""
    found = defaultdict(set)
    for row in plan.rows.to_pylist():
        found[row["video_id"]].add(f"class {row['name']}" if row["set"] == "class" else row["set"])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("count", [15, 20, 60])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_file_serves_one_use_whatever_labels_its_segments_have(count: int, seed: int) -> None:
    plan = plan_matches(count, seed)
    served = uses(plan)
    assert all(len(some) == 1 for some in served.values())
    assert {*itertools.chain(*served.values())} == {*(f"class {label}" for label in LABELS), "concept", "random"}
    assert len(set(plan.rows["clip_id"].to_pylist())) == plan.rows.num_rows
    assert sum(plan.counts["videos"].values()) == count
    assert plan.rows.schema == pa.schema([*PLAN, *SEGMENT])


@pytest.mark.slow
def test_classes_get_their_share_of_files_that_have_all_labels() -> None:
    examples = plan_matches(60).counts["classes"]
    assert set(examples.values()) == {4}


@pytest.mark.slow
def test_class_examples_are_segments_of_their_class() -> None:
    rows = [row for row in plan_matches(40).rows.to_pylist() if row["set"] == "class"]
    per_file = Counter(row["video_id"] for row in rows)
    assert set(per_file.values()) == {2}  # of the six segments of a file
    for row in rows:
        number = int(row["video_id"][5:8])
        assert row["label"] == row["name"] == LABELS[(number + int(row["start"] // 10)) % 3]
        assert row["end"] - row["start"] == SECONDS
        assert row["clip_id"].endswith(f"{row['video_id']}@{row['start']:g}-{row['end']:g}")


@pytest.mark.slow
def test_a_file_gives_a_bounded_number_of_class_examples() -> None:
    table, tracks, segments = matches(40, per_file=30)
    plan = plan_clips(table, iter(tracks), [], config(), 0, segments=segments)
    per_file = Counter(row["video_id"] for row in plan.rows.to_pylist() if row["set"] == "class")
    assert set(per_file.values()) == {SEGMENTS_A_VIDEO}


def test_concept_and_random_clips_stay_inside_a_segment_and_have_its_label() -> None:
    rows = [row for row in plan_matches(40).rows.to_pylist() if row["frames"] is not None]
    assert {row["set"] for row in rows} == {"concept", "random"}
    for row in rows:
        assert row["start"] * FPS <= min(row["frames"])
        assert max(row["frames"]) < row["end"] * FPS
        assert row["label"] == LABELS[(int(row["video_id"][5:8]) + int(row["start"] // 10)) % 3]


@pytest.mark.slow
def test_a_source_of_tracks_that_knows_no_segments_gives_the_same_clips() -> None:
    table, tracks, segments = matches(40)
    known = plan_clips(table, iter(tracks), [], config(), 0, segments=segments).rows
    assert plan_clips(table, iter(tracks), [], config(), 0).rows.equals(known)


def test_a_track_that_runs_through_two_segments_gives_clips_of_each() -> None:
    segments = [{"start": 0.0, "end": 1.0, "label": "a"}, {"start": 1.0, "end": 2.0, "label": "b"}]
    table = videos([{"video_id": f"{i}.mp4", "label": "a; b", "segments": segments} for i in range(20)])
    found = pa.Table.from_pylist(
        [{"video_id": f"{i}.mp4", "start": s, "end": s + 1, "first": int(25 * s), "last": int(25 * s) + 24}
         for i in range(20) for s in (0.0, 1.0)], schema=SEGMENTS)  # fmt: skip
    tracks = tracks_table([track_row(f"{i}.mp4", n=50) for i in range(20)])
    plan = plan_clips(table, [tracks], [], config(min_per_class=1), 0, segments=found)
    spans = [row for row in plan.rows.to_pylist() if row["frames"] is not None]
    assert {row["start"] for row in spans} == {0.0, 1.0}
    assert all(row["start"] * 25 <= row["frames"][0] <= row["frames"][-1] < row["end"] * 25 for row in spans)


def test_a_segment_without_a_frame_gives_no_clip() -> None:
    table, tracks, segments = matches(20)
    beyond = segments.to_pylist()
    for row in beyond:
        if row["start"] == 0.0:
            row["first"] = row["last"] = None
    plan = plan_clips(table, iter(tracks), [], config(), 0, segments=pa.Table.from_pylist(beyond, schema=SEGMENTS))
    assert min(plan.rows["start"].to_pylist()) == 10.0


def test_overlapping_segments_share_their_labels() -> None:
    parts = [(0.0, 4.0, "a"), (3.0, 5.0, "b"), (5.0, 6.0, "c"), (9.0, None, "d")]
    segments = [{"start": start, "end": end, "label": label} for start, end, label in parts]
    corpus = Corpus.of(videos([{"video_id": "v", "label": "a; b; c; d", "segments": segments}]))
    assert [(one.own, one.label) for one in corpus.examples["v"]] == [
        ("a", "a; b"), ("b", "a; b"), ("c", "c"), ("d", "d"),
    ]  # fmt: skip
    assert corpus.listed == [("v", "/videos/v", "a; b; c; d")]
    assert corpus.labels() == ["a", "b", "c", "d"]


def test_a_video_with_two_labels_is_an_example_of_either_and_keeps_both() -> None:
    both = [{"video_id": f"both{i:02d}", "label": "drinking; sitting"} for i in range(12)]
    rest = [{"video_id": f"rest{i:02d}", "label": "waving"} for i in range(30)]
    tracks = tracks_table([track_row(row["video_id"]) for row in (*both, *rest)])
    model = ["Sitting", "Drinking", "Waving"]
    plan = plan_clips(videos([*both, *rest]), [tracks], [], config(), 0, model)
    examples = [row for row in plan.rows.to_pylist() if row["set"] == "class"]
    assert Counter(row["name"] for row in examples) == {"Sitting": 4, "Drinking": 4, "Waving": 4}
    assert {row["label"] for row in examples if row["name"] != "Waving"} == {"Drinking; Sitting"}
    assert all(len(some) == 1 for some in uses(plan).values())
    others = {row["label"] for row in plan.rows.to_pylist() if row["set"] != "class"}
    assert others <= {"Drinking; Sitting", "Waving"}
    assert plan.rows.schema == PLAN


def test_rare_classes_get_the_videos_that_they_share() -> None:
    """Of 20 videos with a common label, 3 also have a rare one: these are the rare class's only examples."""
    rows = [{"video_id": f"{i:02d}", "label": "common; rare" if i < 3 else "common"} for i in range(20)]
    plan = plan_clips(videos(rows), [tracks_table([track_row(row["video_id"]) for row in rows])], [], config(), 0)
    assert {row["video_id"] for row in plan.rows.to_pylist() if row["name"] == "rare"} <= {"00", "01", "02"}
    assert plan.counts["classes"]["rare"] == 3


@pytest.mark.slow
def test_files_of_one_source_are_one_video() -> None:
    rows = [
        {"video_id": f"part{i:02d}.mp4", "label": LABELS[i % 3], "source": f"match {i // 3}"} for i in range(60)
    ]  # each match has a part of each label
    tables = [tracks_table([track_row(row["video_id"])]) for row in rows]  # each file in a table of its own
    plan = plan_clips(videos(rows), iter(tables), [], config(), 0)
    served = uses(plan)
    assert all(len(some) == 1 for some in served.values())
    assert set(served) <= {f"match {i}" for i in range(20)}
    assert sum(plan.counts["videos"].values()) == 20
    for row in plan.rows.to_pylist():
        number = int(row["uri"][len("/videos/part") :][:2])
        assert row["video_id"] == f"match {number // 3}"
        assert row["label"] == LABELS[number % 3]
        assert f"/part{number:02d}.mp4" in row["clip_id"]
    assert len(set(plan.rows["clip_id"].to_pylist())) == plan.rows.num_rows


@pytest.mark.slow
def test_clips_of_a_segment_have_its_frames() -> None:
    data = encode(numbered_frames(300), options={"g": "30"})
    rows = [
        {"clip_id": f"{set_}{start}", "set": set_, "name": "n", "kind": "full", "video_id": "v", "uri": "u",
         "start": start, "end": end, "view": 0, "seed": 3, "pick": 0}
        for set_ in ("class", "random") for start, end in ((2.0, 4.0), (8.0, None), (9.0, 9.5))
    ]  # fmt: skip
    plan = pa.Table.from_pylist(rows, schema=pa.schema([*PLAN, *SEGMENT]))
    clips, failures = cut_clips(plan, {"v": data}, config(size=64))
    assert not failures
    by_id = {row["clip_id"]: row["frames"] for row in clips.to_pylist()}
    assert by_id["class2.0"] == list(range(67, 83, 2))  # in the middle of the frames 50 to 99
    assert by_id["class8.0"] == list(range(242, 258, 2))
    assert by_id["class9.0"] == [*range(225, 238, 2), 226]  # looped inside its 13 frames
    for start, end in ((2.0, 4.0), (8.0, 12.0), (9.0, 9.5)):
        assert all(start * 25 <= frame < end * 25 for frame in by_id[f"random{start}"])
    for row in clips.to_pylist():
        assert [number_of(frame) for frame in decode_clip(row["encoding"], row["encoded"])] == row["frames"]


def test_a_segment_beyond_the_end_is_a_failure_of_its_clips_alone() -> None:
    rows = [
        {"clip_id": str(start), "set": "class", "name": "n", "kind": "full", "video_id": "v", "uri": "u",
         "start": start, "end": start + 1, "view": 0, "seed": 3, "pick": 0} for start in (0.0, 9.0)
    ]  # fmt: skip
    plan = pa.Table.from_pylist(rows, schema=pa.schema([*PLAN, *SEGMENT]))
    clips, (failure,) = cut_clips(plan, {"v": encode(numbered_frames(50))}, config())
    assert clips["clip_id"].to_pylist() == ["0.0"]
    assert (failure.clip_id, failure.error_kind) == ("9.0", "segment")
    assert "9-10 s" in failure.message


def test_label_sets() -> None:
    assert join_labels(["b", None, "a ", "b", ""]) == "a; b"
    assert join_labels([]) is None
    assert split_labels("b;a") == ("a", "b")
    assert split_labels("start; stop", NameIndex(["start; stop", "stop"])) == ("start; stop",)
    assert has_label("arm wrestling; drinking", "Arm_Wrestling")
    assert has_label("start; stop", "Start; Stop")
    assert not has_label("drinking tea", "drinking")
    assert not has_label(None, "drinking")

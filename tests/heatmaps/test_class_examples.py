"""The class examples that maps are drawn on: the choice, the clips of a shard, the boxes of their tracks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.tracked_things import track_row, tracks_table
from vtcav_ray import tables
from vtcav_ray.heatmaps.examples import PLAN, Examples, nulls, plan
from vtcav_ray.models.preprocess import Crop, Preprocessor, Resize
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder

HALVED = Preprocessor(
    resizes=(Resize((float("inf"), 50.0), True, cv2.INTER_LINEAR),),  # a clip of 100 x 200 becomes 50 x 100
    crop=Crop("center", 50, 50),  # from x = 25
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    swap_channels=False,
    sampling=None,
)


def clip_row(name: str, video: str, set_: str = "class") -> dict[str, Any]:
    return {"clip_id": f"{set_}/{name}/{video}", "set": set_, "name": name, "video_id": video, "label": name,
            "frames": [0, 2, 4], "height": 100, "width": 200, "encoding": "webp", "encoded": b"..."}  # fmt: skip


def clips_of(place: Path, *shards: list[dict[str, Any]]) -> StageFolder:
    output = stage_folder(Folder(str(place)), "clips", "k")
    for number, rows in enumerate(shards):
        output.commit(f"c{number}", ShardOutput({"clips": pa.Table.from_pylist(rows, schema=tables.CLIPS)}))
    output.finish({}, {"notes": {}, "warnings": []})
    return output


def tracks_of(place: Path, *shards: list[dict[str, Any]]) -> StageFolder:
    output = stage_folder(Folder(str(place)), "tracks", "k")
    for number, rows in enumerate(shards):
        output.commit(f"t{number}", ShardOutput({"tracks": tracks_table(rows)}))
    output.finish({}, {"notes": {}, "warnings": []})
    return output


@pytest.fixture
def clips(tmp_path: Path) -> StageFolder:
    """Six examples of `lift`, three of `drop`, a concept's clip, in two shards."""
    lift, drop = ([clip_row(name, f"{name}{i}") for i in range(n)] for name, n in (("lift", 6), ("drop", 3)))
    return clips_of(tmp_path, [*lift[:4], clip_row("cup", "x", "concept")], [*lift[4:], *drop])


def planned(clips: StageFolder, tracks: StageFolder | None = None, **changes: Any) -> pa.Table:
    return plan(clips, tracks, "gradcam", **{"most": None, "overlays": 1, "seed": 0, **changes})


def test_all_class_examples_are_examined_in_the_order_of_the_clips(clips: StageFolder) -> None:
    found = planned(clips)
    assert found.schema == PLAN
    assert found["video_id"].to_pylist() == [*(f"lift{i}" for i in range(6)), *(f"drop{i}" for i in range(3))]
    assert found["shard"].to_pylist() == ["c0"] * 4 + ["c1"] * 5
    assert set(found["tracks_shard"].to_pylist()) == {None}
    drawn = [row["class"] for row in found.to_pylist() if row["draw"]]
    assert sorted(drawn) == ["drop", "lift"]  # one of each


def test_a_limit_takes_turns_over_the_classes(clips: StageFolder) -> None:
    def classes(most: int) -> list[str]:
        return sorted(planned(clips, most=most)["class"].to_pylist())

    assert classes(4) == ["drop"] * 2 + ["lift"] * 2
    assert classes(8) == ["drop"] * 3 + ["lift"] * 5
    assert set(planned(clips, most=2)["clip_id"].to_pylist()) < set(planned(clips, most=5)["clip_id"].to_pylist())


def test_the_choice_depends_on_the_seed_and_the_stream(clips: StageFolder) -> None:
    def chosen(seed: int, stream: str) -> tuple[str, ...]:
        found = plan(clips, None, stream, most=4, overlays=1, seed=seed)
        return tuple(found["clip_id"].to_pylist())

    assert chosen(0, "gradcam") == chosen(0, "gradcam")
    assert len({chosen(seed, "gradcam") for seed in range(8)}) > 2
    assert len({chosen(0, stream) for stream in ("gradcam", "maps", "faithful", "a", "b", "c", "d", "e")}) > 2


def test_only_wanted_classes_are_examined(clips: StageFolder) -> None:
    found = planned(clips, classes={"drop"}, overlays=5)
    assert found["class"].to_pylist() == ["drop"] * 3
    assert found["draw"].to_pylist() == [True] * 3


def test_a_shard_of_the_plan_finds_its_clips_and_tracks(clips: StageFolder, tmp_path: Path) -> None:
    tracks = tracks_of(tmp_path, [track_row("lift0"), track_row("lift0", 2)], [track_row("lift4"), track_row("drop0")])
    found = planned(clips, tracks)
    places = dict(zip(found["video_id"].to_pylist(), found["tracks_shard"].to_pylist(), strict=True))
    assert (places["lift0"], places["lift4"], places["drop0"], places["lift1"]) == ("t0", "t1", "t1", None)
    rows = found.filter(pa.array([v in ("lift0", "lift1", "lift4") for v in found["video_id"].to_pylist()]))
    examples = Examples(clips, tracks, HALVED)
    assert [clip["video_id"] for clip in examples.clips(rows)] == ["lift0", "lift1", "lift4"]
    of_video = examples.tracks(rows)
    assert {video: [t.track_id for t in some] for video, some in of_video.items()} == {"lift0": [1, 2], "lift4": [1]}


def test_without_a_detector_there_are_no_tracks(clips: StageFolder) -> None:
    assert Examples(clips, None, HALVED).tracks(planned(clips)) == {}


def test_boxes_are_on_the_models_input(clips: StageFolder, tmp_path: Path) -> None:
    """The track of `track_row` moves right by two pixels a frame, from (20, 40). The clip has frames 0, 2 and 4."""
    late = track_row("lift0", 2, frames=np.arange(50, 90))
    tracks = tracks_of(tmp_path, [track_row("lift0", n=4), late])
    examples = Examples(clips, tracks, HALVED)
    rows = planned(clips, tracks).slice(0, 1)
    (clip,) = examples.clips(rows)
    (boxes,) = examples.boxes(clip, examples.tracks(rows)["lift0"])  # the other track is not in the clip
    np.testing.assert_allclose(boxes[0], [20 / 2 - 25, 20, 40 / 2 - 25, 30])
    np.testing.assert_allclose(boxes[1], [24 / 2 - 25, 20, 44 / 2 - 25, 30])
    assert np.isnan(boxes[2]).all()  # the track ends at frame 3


def test_a_figure_that_is_not_known_is_null() -> None:
    row = {"flicker": float("nan"), "passes": 3, "share": 0.5, "class": "lift", "label": None}
    assert nulls(row) == {"flicker": None, "passes": 3, "share": 0.5, "class": "lift", "label": None}

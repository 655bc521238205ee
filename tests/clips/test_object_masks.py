"""`clips.mask`: clips show their object alone on grey, random clips too; frames between masks; keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.drawn import encode
from tests.helpers.tracked_things import track_row, tracks_table, videos_table
from vtcav_ray.clips.cut import cut_clips
from vtcav_ray.clips.duplicates import appearance_of
from vtcav_ray.clips.masks import COLUMN, GREY, ObjectMasks, alone, with_masks
from vtcav_ray.clips.plan_table import PLAN
from vtcav_ray.clips.stage import STAGE as CLIPS
from vtcav_ray.clips.stage import CutWorker, _clip_ingredients
from vtcav_ray.config import ClipsConfig, Config
from vtcav_ray.errors import InputError, StageError
from vtcav_ray.runs.stage import Context
from vtcav_ray.store.commits import ShardOutput, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.tracks.masks import Mask, masks_row, masks_table
from vtcav_ray.video.codec import decode_clip

T, SIZE = 12, (80, 120)
RADIUS = 12
CONFIG = ClipsConfig(frames=T, interval=1, size=48, mask=True)
KINDS = ("spatial", "spatiotemporal", "tracked", "frozen", "shuffled", "reversed", "padding", "context")


def centre(t: float) -> tuple[float, float]:
    return 30 + 4 * t, 40.0


def disc(t: float, radius: float = RADIUS) -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    return (x - centre(t)[0]) ** 2 + (y - centre(t)[1]) ** 2 < radius**2


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A red disc that moves right over green and blue stripes; uint8 [T, H, W, 3] and its boxes [T, 4]."""
    stripes = np.zeros((*SIZE, 3), np.uint8)
    stripes[..., 1] = np.where(np.arange(SIZE[1]) % 8 < 4, 220, 0)
    stripes[..., 2] = 255 - stripes[..., 1]
    frames = np.stack([np.where(disc(t)[..., None], np.uint8([230, 20, 20]), stripes) for t in range(T)])
    x, y = np.array([centre(t) for t in range(T)]).T
    return frames, np.stack((x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS), 1)


def stored(times: list[int], radii: list[float] | None = None) -> list[dict[str, Any]]:
    masks = [Mask.of_bits(disc(t, r)) for t, r in zip(times, radii or [RADIUS] * len(times), strict=True)]
    return [
        {"frame": t, "window": m.window, "runs": m.runs} for t, m in zip(times, masks, strict=True) if m is not None
    ]


def row(kind: str, set_: str = "concept", **changes: Any) -> dict[str, Any]:
    name = "disc" if set_ == "concept" else f"random/{kind}"
    base = {
        "clip_id": f"{set_}/{kind}", "set": set_, "name": name, "kind": kind, "video_id": "v", "uri": "/v",
        "label": None, "object": "disc", "motion": "right", "track_id": 1, "frames": list(range(T)),
        "boxes": scene()[1].tolist(), "control_of": None, "pick": 3, "view": 0, "seed": 7,
    }  # fmt: skip
    return {**base, **changes}


def plan_of(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=PLAN)


def folder_of(tmp_path: Path, masks: pa.Table | None) -> Any:
    folder = stage_folder(Folder(str(tmp_path)), "tracks", "k")
    made = {"tracks": tracks_table([track_row("v")]), **({} if masks is None else {"masks": masks})}
    folder.commit("all", ShardOutput(made))
    return folder


def track_masks(times: list[int]) -> pa.Table:
    found = [(t, mask) for t in times if (mask := Mask.of_bits(disc(t))) is not None]
    made = [masks_row("v", 1, found), masks_row("v", 2, found[:1]), masks_row("w", 1, found[:1])]
    return masks_table([r for r in made if r is not None])


def cut(plan: pa.Table, config: ClipsConfig = CONFIG) -> tuple[dict[str, np.ndarray], list[Any]]:
    frames = scene()[0]
    table, failures = cut_clips(plan, {"v": lossless(frames)}, config)
    return {r["clip_id"]: decode_clip(r["encoding"], r["encoded"]) for r in table.to_pylist()}, failures


def lossless(frames: np.ndarray) -> bytes:
    return encode(frames, container="matroska", codec="libx264rgb", pix_fmt="rgb24", options={"crf": "0"})


def background(clip: np.ndarray) -> np.ndarray:
    """Where green or blue stripes show: bool [T, h, w]."""
    return np.maximum(clip[..., 1], clip[..., 2]).astype(int) > GREY + 40


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    rows = [row(kind, set_) for kind in KINDS for set_ in ("concept", "random")]
    folder = folder_of(tmp_path_factory.mktemp("run"), track_masks(list(range(T))))
    found, failures = cut(with_masks(plan_of(*rows), folder))
    assert failures == []
    return found


@pytest.mark.parametrize("set_", ["concept", "random"])
@pytest.mark.parametrize("kind", ["spatial", "spatiotemporal", "tracked", "frozen", "shuffled", "reversed"])
def test_the_object_is_alone_on_grey(clips: dict[str, np.ndarray], kind: str, set_: str) -> None:
    clip = clips[f"{set_}/{kind}"]
    assert not background(clip).any()
    red = (clip[..., 0] > 180) & (clip[..., 1] < 90)
    grey = (np.abs(clip.astype(int) - GREY) <= 2).all(3)
    assert 0.6 < red.mean() < np.pi / 4 + 0.02, "a disc in its box"
    assert grey[:, :4, :4].all(), "a corner of the box, which is no part of the object"
    assert ((red | grey).mean(axis=(1, 2)) > 0.85).all(), "the rest is the outline"


def test_full_frames_stay_as_they_are(clips: dict[str, np.ndarray]) -> None:
    plain, _ = cut(
        plan_of(row("context"), row("full", "class", frames=None, boxes=None, track_id=None)),
        ClipsConfig(frames=T, interval=1, size=48),
    )
    assert np.array_equal(clips["concept/context"], plain["concept/context"])
    assert background(clips["random/context"]).mean() > 0.3


def test_the_padding_control_is_the_silhouette(clips: dict[str, np.ndarray]) -> None:
    clip = clips["concept/padding"]
    colours = np.unique(clip.reshape(-1, 3), axis=0)
    assert len(colours) == 2
    shape = (clip != GREY).any(3)
    assert np.abs(shape.mean() - np.pi / 4) < 0.05
    assert (clip[shape][0] == clip[shape]).all()
    assert clip[shape][0][0] > 180


def test_a_silhouette_of_the_background_colour_is_still_seen() -> None:
    frames = np.full((T, *SIZE, 3), GREY, np.uint8)
    from vtcav_ray.clips.kinds import builder_of

    builder = builder_of("padding")(scene()[1], T, SIZE, 48)
    builder.background = GREY
    for t in range(T):
        builder.put(t, frames[t], disc(t))
    clip = builder.finish()
    assert 0.7 < (clip != GREY).any(3).mean() < 0.85


def test_without_the_setting_nothing_is_masked() -> None:
    plain = CONFIG.model_copy(update={"mask": False})
    found, _ = cut(plan_of(row("spatial"), row("tracked")), plain)
    assert background(found["concept/spatial"]).any()
    assert background(found["concept/tracked"]).any()


def test_the_plan_takes_the_masks_of_its_own_frames_and_the_neighbours_of_gaps(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, track_masks([0, 2, 3, 7, 11]))
    rows = [
        row("spatial", frames=[2, 3]),
        row("tracked", frames=[1, 4, 9]),
        row("spatial", track_id=3),
        row("context"),
        row("full", "class", frames=None, boxes=None, track_id=None),
    ]
    table = with_masks(plan_of(*rows), folder)
    assert table.select(PLAN.names).equals(plan_of(*rows))
    shown = [None if masks is None else [m["frame"] for m in masks] for masks in table[COLUMN].to_pylist()]
    assert shown == [[2, 3], [0, 2, 3, 7, 11], [], None, None]
    (first, _) = table[COLUMN][0].as_py()
    assert np.array_equal(Mask(tuple(first["window"]), np.array(first["runs"])).bits, disc(2)[28:52, 26:50])


def test_a_gap_is_filled_by_the_shape_between() -> None:
    frames, boxes = np.arange(T), scene()[1]
    masks = ObjectMasks(stored([2, 8], [8, 14]), frames, boxes, SIZE)
    for t in (3, 5, 7):
        wanted = disc(t, 8 + 6 * (t - 2) / 6)
        found = masks.at(t)
        assert (found & wanted).sum() / (found | wanted).sum() > 0.9
    assert np.array_equal(masks.at(2), disc(2, 8))
    # Before the first mask and after the last, the nearest shape fills the box.
    for t in (0, 11):
        assert (masks.at(t) & disc(t)).sum() / (masks.at(t) | disc(t)).sum() > 0.9


def test_a_mask_beyond_the_frame_is_cut_off() -> None:
    mask = Mask.of_bits(np.ones((20, 30), bool), left=SIZE[1] - 10, top=-5)
    assert mask is not None
    one = [{"frame": 0, "window": mask.window, "runs": mask.runs}]
    found = ObjectMasks(one, np.arange(1), np.array([[0, 0, 9, 9]]), SIZE).at(0)
    assert found.sum() == 10 * 15
    assert found[:15, -10:].all()


def test_a_track_without_a_mask_is_a_failure_row(tmp_path: Path) -> None:
    table = with_masks(plan_of(row("spatial", track_id=3), row("tracked")), folder_of(tmp_path, track_masks([0, 5])))
    found, failures = cut(table)
    assert list(found) == ["concept/tracked"]
    assert [(f.clip_id, f.error_kind) for f in failures] == [("concept/spatial", "no_mask")]
    with pytest.raises(InputError, match="no mask"):
        ObjectMasks([], np.arange(3), np.zeros((3, 4)), SIZE)


def test_tracks_without_masks_are_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"`clips\.mask` needs masks, and the tracks have none"):
        with_masks(plan_of(row("spatial")), folder_of(tmp_path, None))


def test_looks_ignore_the_grey_around_an_object() -> None:
    rng = np.random.default_rng(0)
    thing = cv2.resize(rng.integers(0, 255, (6, 6, 3), np.uint8), (24, 24))
    clip = np.full((3, 48, 48, 3), GREY, np.uint8)
    clip[:, 12:36, 12:36] = thing
    bare = appearance_of(np.stack([thing] * 3))
    assert appearance_of(clip, GREY).bits == bare.bits
    assert appearance_of(clip).bits != bare.bits


def test_alone_leaves_the_frame_itself_unchanged() -> None:
    frame = scene()[0][0]
    before = frame.copy()
    found = alone(frame, disc(0))
    assert np.array_equal(frame, before)
    assert np.array_equal(found[disc(0)], frame[disc(0)])
    assert (found[~disc(0)] == GREY).all()


def config_of(mask: bool) -> Config:
    clips = {
        "frames": 8, "interval": 1, "size": 32, "per_class": 6, "min_per_class": 2, "per_concept": 6,
        "min_per_concept": 2, "random_pool": 12, "mask": mask,
        "concepts": [{"name": "cup", "object": "cup"}],
    }  # fmt: skip
    return Config.model_validate({"videos": {"uri": "x"}, "out": "y", "clips": clips})


def test_the_stage_plans_and_cuts_masked_clips(tmp_path: Path) -> None:
    names = [f"v{i}" for i in range(12)]
    run, inputs = Folder(str(tmp_path)), {}
    masks = [
        masks_row(name, 1, [(t, m) for t in range(40) if (m := Mask.of_bits(np.ones((20, 20), bool), 20 + 2 * t, 40))])
        for name in names
    ]
    made = {"tracks": tracks_table([track_row(n) for n in names]), "masks": masks_table([m for m in masks if m])}
    for stage, found in (("videos", {"videos": videos_table(dict.fromkeys(names, "lift"))}), ("tracks", made)):
        inputs[stage] = stage_folder(run, stage, "k")
        inputs[stage].commit("all", ShardOutput(found))
    plain = CLIPS.prepare(Context(config_of(False), run, inputs))
    masked = CLIPS.prepare(Context(config_of(True), run, inputs))
    assert [s.name for s in plain.shards] == [s.name for s in masked.shards]
    assert COLUMN not in plain.shards[0].rows.column_names
    shown = {
        r["set"]: r[COLUMN] is not None
        for shard in masked.shards
        for r in shard.rows.to_pylist()
        if r["set"] != "class"
    }
    assert shown == {"concept": True, "random": True}
    # Cut from videos whose frames are all white: what is white in a clip is the object.
    white = lossless(np.full((40, 100, 200, 3), 255, np.uint8))
    (tmp_path / "white.mkv").write_bytes(white)
    uris = pa.array([str(tmp_path / "white.mkv")] * masked.shards[0].rows.num_rows)
    rows = masked.shards[0].rows
    rows = rows.set_column(rows.column_names.index("uri"), "uri", uris)
    output = CutWorker(config_of(True))(rows)
    assert output.failures == []
    for made_clip in output.tables["clips"].to_pylist():
        clip = decode_clip(made_clip["encoding"], made_clip["encoded"])
        if made_clip["kind"] in ("spatial", "spatiotemporal"):
            assert (clip > 245).all(), "the mask fills the box"


def test_the_key_of_clips_changes_only_with_the_setting(tmp_path: Path) -> None:
    def ingredients(mask: bool) -> dict[str, Any]:
        return _clip_ingredients(Context(config_of(mask), Folder(str(tmp_path)), {}, {"respelled": {}}))

    plain, masked = ingredients(False), ingredients(True)
    assert "mask" not in plain["clips"]
    assert masked["clips"] == {**plain["clips"], "mask": True}

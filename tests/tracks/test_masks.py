"""Masks of detected objects: runs, those of `predict()`, and the side table of tracks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.drawn import encode, square_video
from tests.helpers.tracked_things import RedSquares, track_row, tracks_table
from tests.helpers.ultralytics_networks import (
    CONFIDENCE,
    IOU,
    SIDE,
    exported,
    opened,
    picture,
    pt_of,
    tracks_config,
)
from vtcav_ray.config import Config, TracksConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.preflight.detector import detector_checks
from vtcav_ray.registry import TRACK_SOURCES
from vtcav_ray.tables import MASKS
from vtcav_ray.tracks.detect import Detections, Detector
from vtcav_ray.tracks.masks import Mask, masks_in_source, masks_table
from vtcav_ray.tracks.sources import Tracked, TrackSource
from vtcav_ray.tracks.stage import TrackWorker, _track_ingredients
from vtcav_ray.tracks.track import track_videos

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("no_warm_up")]
WITH_MASKS = ("v8/yolov8-seg.yaml", "26/yolo26-seg.yaml", "v8/yoloe-v8-seg.yaml", "26/yoloe-26-seg.yaml")


@pytest.mark.parametrize("seed", range(20))
def test_runs_hold_every_pixel_of_the_smallest_window(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits = rng.random(rng.integers(1, 12, 2)) < rng.choice([0.05, 0.5, 1.0])
    mask = Mask.of_bits(bits, left=7, top=5)
    if not bits.any():
        assert mask is None
        return
    assert mask is not None
    x1, y1, x2, y2 = mask.window
    whole = np.zeros((40, 40), bool)
    whole[y1:y2, x1:x2] = mask.bits
    wanted = np.zeros((40, 40), bool)
    wanted[5 : 5 + bits.shape[0], 7 : 7 + bits.shape[1]] = bits
    assert np.array_equal(whole, wanted)
    inner = mask.bits
    assert all(edge.any() for edge in (inner[0], inner[-1], inner[:, 0], inner[:, -1]))


def test_runs_that_do_not_fill_the_window_are_an_error() -> None:
    with pytest.raises(ValueError, match="does not fill"):
        _ = Mask((0, 0, 4, 4), np.array([3, 4], np.uint32)).bits


def test_a_mask_lies_where_the_prototype_does() -> None:
    """A frame of 100 x 200 in an input of 64 x 128: padded by nothing, and 4 prototype cells are 8 pixels."""
    prototypes = np.full((2, 16, 32), -1.0, np.float32)
    prototypes[0, 4:8, 10:20] = 1.0
    boxes = np.array([[50.0, 10.0, 140.0, 70.0], [0.0, 0.0, 30.0, 20.0]])
    first, second = masks_in_source(np.eye(2, dtype=np.float32), prototypes, boxes, (64, 128), (100, 200))
    assert second is None
    assert first is not None
    x1, y1, x2, y2 = first.window  # a cell is 6.25 pixels
    assert np.abs(np.array([x1, y1, x2, y2]) - [62.5, 25, 125, 50]).max() <= 1
    assert first.bits.mean() > 0.95
    # The same picture between bars: 128 x 128, 32 rows of padding above.
    padded = np.full((2, 32, 32), -1.0, np.float32)
    padded[:, 8:24] = prototypes
    (same, _) = masks_in_source(np.eye(2, dtype=np.float32), padded, boxes, (128, 128), (100, 200))
    assert same is not None
    assert same.window == first.window
    assert np.array_equal(same.bits, first.bits)


def detector(path: str, **options: Any) -> Detector:
    return Detector(tracks_config(path), "cpu", **options)


def same_masks(path: str, name: str) -> None:
    """Check that our masks are those of `predict(retina_masks=True)`, box by box."""
    (wanted,) = opened(path, name).predict(
        picture()[..., ::-1].copy(),
        conf=CONFIDENCE,
        iou=IOU,
        imgsz=SIDE,
        verbose=False,
        device="cpu",
        retina_masks=True,
    )
    boxes, drawn = wanted.boxes.data.numpy(), wanted.masks.data.numpy() > 0
    (found,) = detector(path, masks=True)([picture()])
    assert found.masks is not None
    assert len(found.masks) == len(found.boxes) >= len(boxes) > 5
    overlaps = []
    for box, pixels in zip(boxes, drawn, strict=True):
        apart = np.abs(found.boxes - box[:4]).max(1) + 1000 * (found.classes != box[5])
        mask = found.masks[(apart + 1000 * np.abs(found.confidence - box[4])).argmin()]
        assert mask is not None
        whole = np.zeros(picture().shape[:2], bool)
        whole[mask.window[1] : mask.window[3], mask.window[0] : mask.window[2]] = mask.bits
        if pixels.sum() > 300:  # the outline is most of a smaller one, and Ultralytics interpolates it twice
            overlaps.append((whole & pixels).sum() / (whole | pixels).sum())
    assert len(overlaps) > 5
    assert min(overlaps) > 0.85
    assert np.median(overlaps) > 0.93


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_MASKS)
def test_the_masks_of_a_pt_are_those_of_predict(tmp_path: Path, name: str) -> None:
    same_masks(pt_of(name, tmp_path), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_MASKS[:2])
def test_the_masks_of_an_onnx_are_those_of_predict(tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path = exported(pt_of(name, tmp_path), name, dynamic=True)
    same_masks(path, name)


@pytest.mark.slow
def test_boxes_are_the_same_with_and_without_masks(tmp_path: Path) -> None:
    path = pt_of(WITH_MASKS[0], tmp_path)
    (plain,), (drawn,) = detector(path)([picture()]), detector(path, masks=True)([picture()])
    assert plain.masks is None
    assert np.array_equal(plain.boxes, drawn.boxes)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["v8/yolov8.yaml", "v8/yolov8-pose.yaml", pytest.param("v8/yolov8-rtdetr.yaml", marks=pytest.mark.full)]
)
def test_weights_without_masks_stop_the_run_before_it_starts(tmp_path: Path, name: str) -> None:
    path = pt_of(name, tmp_path)
    with pytest.raises(ConfigError, match=r"`clips\.mask` needs masks.*gives only boxes.*segmentation weights"):
        detector(path, masks=True)
    assert detector(path)
    tracks = {"weights": path, "image_size": SIDE}
    config = Config.model_validate({"videos": {"uri": "x"}, "out": "y", "tracks": tracks, "clips": {"mask": True}})
    (check,) = detector_checks(config)
    assert check.verdict == "stop"
    assert "`clips.mask`" in check.message


class Discs(RedSquares):
    """A stand-in for a detector with masks: it finds red objects, and draws a disc in each."""

    def _objects(self, image: np.ndarray) -> Detections:
        found = super()._objects(image)
        return replace(found, masks=tuple(disc(box, image.shape[:2]) for box in found.boxes))


def disc(box: np.ndarray, size: Sequence[int]) -> Mask | None:
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    centre, radius = (box[:2] + box[2:]) / 2, (box[2] - box[0]) / 2
    return Mask.of_bits((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2)


def test_tracks_keep_the_masks_of_their_own_detections() -> None:
    frames, boxes = square_video([(5 + 2 * t, 30) for t in range(20)], side=16)
    for t in range(20):  # a second object, further down, that moves the other way
        frames[t, 70:80, 100 - 3 * t : 110 - 3 * t] = (250, 10, 10)
    masks: dict[str, list[dict[str, Any]]] = {}
    tracks, failures, _ = track_videos(
        [("v", encode(frames)), ("bad", b"no video")], Discs(), TracksConfig(batch_size=8), masks=masks
    )
    assert [f.video_id for f in failures] == ["bad"]
    assert list(masks) == ["v"]
    table = masks_table(masks["v"])
    assert table.schema == MASKS
    assert table["track_id"].to_pylist() == tracks["track_id"].to_pylist() == [1, 2]
    for track, row in zip(tracks.to_pylist(), table.to_pylist(), strict=True):
        assert row["frames"] == track["frames"]
        for frame, window, runs, box in zip(row["frames"], row["windows"], row["runs"], track["boxes"], strict=True):
            mask = Mask(tuple(window), np.array(runs))
            side = boxes[0][2] - boxes[0][0] if track["boxes"][0][1] < 50 else 10
            assert 0.5 < mask.bits.sum() / (np.pi / 4 * side**2) < 1.3, "a disc of its own size"
            assert np.abs(np.array(window) - box).max() < 4, f"frame {frame}: where the object is"


def test_a_shard_has_masks_only_if_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Drawn(TrackSource):
        draws_masks = True

        def tracks_of(self, videos: Any) -> Tracked:
            masks = masks_table([]) if self.config.clips.mask else None
            return Tracked(tracks_table([track_row("a")]), masks=masks)

    class Plain(TrackSource):
        def tracks_of(self, videos: Any) -> Tracked:
            return Tracked(tracks_table([track_row("a")]))

    monkeypatch.setitem(TRACK_SOURCES._entries, "drawn", Drawn)
    monkeypatch.setitem(TRACK_SOURCES._entries, "plain", Plain)
    from tests.helpers.tracked_things import videos_table

    def config(source: str, mask: bool) -> Config:
        sections = {"tracks": {"source": source}, "clips": {"mask": mask}}
        return Config.model_validate({"videos": {"uri": "x"}, "out": "y", **sections})

    for mask in (False, True):
        made = TrackWorker(config("drawn", mask))(videos_table({"a": None}))
        assert ("masks" in made.tables) == mask
    assert detector_checks(config("drawn", True))[0].verdict == "ok"
    (check,) = detector_checks(config("plain", True))
    assert check.verdict == "stop"
    assert "tracks from `plain` have no masks" in check.message


def test_the_key_of_tracks_changes_only_with_the_new_settings(tmp_path: Path) -> None:
    from vtcav_ray.runs.stage import Context
    from vtcav_ray.store.folder import Folder

    def ingredients(**sections: Any) -> dict[str, Any]:
        config = Config.model_validate({"videos": {"uri": "x"}, "out": "y", **sections})
        return _track_ingredients(Context(config, Folder(str(tmp_path)), {}))

    plain = ingredients()
    assert plain == ingredients(clips={"mask": False}, tracks={"vocabulary": None})
    assert not {"masks", "text_encoder"} & plain.keys()
    assert not {"vocabulary", "text_encoder"} & plain["tracks"].keys()
    assert ingredients(clips={"mask": True}) == {**plain, "masks": 1}

"""Suppression on NumPy equals Ultralytics' own, and activation in place changes no number."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vtcav_ray.config import TracksConfig
from vtcav_ray.tracks.detect import Detector
from vtcav_ray.tracks.suppression import MOST_BOXES, suppress
from vtcav_ray.tracks.track import make_tracker


def candidates(seed: int, count: int, classes: int, extra: int = 0) -> np.ndarray:
    """Return boxes in a small picture, so that many overlap, with tied scores and boxes without area among them."""
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(0, 60, (count, 4)).astype(np.float32)
    boxes[rng.random(count) < 0.1, 2:] = 0
    scores = rng.integers(0, 12, (count, classes)).astype(np.float32) / 12
    return np.concatenate((boxes, scores, rng.normal(size=(count, extra)).astype(np.float32)), axis=1)


def by_ultralytics(rows: np.ndarray, count: int, confidence: float, iou: float, **options: object) -> np.ndarray:
    from ultralytics.utils.nms import non_max_suppression

    padded = np.pad(rows, ((0, max(0, 7 - len(rows))), (0, 0)))  # six columns would be an end-to-end model's
    (kept,) = non_max_suppression(
        torch.from_numpy(padded.T[None].copy()), confidence, iou, nc=count, max_time_img=1e6, **options
    )
    return np.asarray(kept)


@pytest.fixture(autouse=True)
def own_nms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with Ultralytics' NMS, which it leaves for torchvision's if another test has imported that."""
    import sys

    monkeypatch.delitem(sys.modules, "torchvision", raising=False)


@pytest.mark.parametrize("count", [0, 1, 6, 40, 700])
@pytest.mark.parametrize("iou", [0.0, 0.45, 0.7])
def test_the_same_boxes_in_the_same_order(count: int, iou: float) -> None:
    for seed in range(4):
        rows = candidates(seed, count, classes=3)
        np.testing.assert_array_equal(suppress(rows, 3, 0.3, iou), by_ultralytics(rows, 3, 0.3, iou))


def test_classes_agnostic_and_further_numbers() -> None:
    rows = candidates(7, 80, classes=4, extra=5)
    for agnostic in (False, True):
        ours = suppress(rows, 4, 0.2, 0.5, wanted=[1, 3], agnostic=agnostic)
        np.testing.assert_array_equal(ours, by_ultralytics(rows, 4, 0.2, 0.5, classes=[1, 3], agnostic=agnostic))
        assert ours.shape[1] == 11
        assert set(ours[:, 5]) <= {1, 3}


def test_no_more_boxes_than_predict_keeps() -> None:
    places = np.arange(500, dtype=np.float32)
    rows = np.stack((places * 20, places * 0, places * 0 + 5, places * 0 + 5, 1 - places / 1000), axis=1)
    ours = suppress(rows, 1, 0.1, 0.5)
    assert len(ours) == MOST_BOXES
    np.testing.assert_array_equal(ours, by_ultralytics(rows, 1, 0.1, 0.5))


def test_numbers_that_are_not_finite_do_not_end_it() -> None:
    rows = candidates(3, 30, classes=2)
    rows[0, :4], rows[1, 4], rows[2, 0] = np.inf, np.nan, np.nan
    np.testing.assert_array_equal(suppress(rows, 2, 0.2, 0.5), by_ultralytics(rows, 2, 0.2, 0.5))


@pytest.mark.slow
def test_boxes_in_the_source_are_ultralytics_own() -> None:
    from ultralytics.utils.ops import scale_boxes

    detector = Detector(TracksConfig(image_size=128), "cpu")
    boxes = np.random.default_rng(0).uniform(-5, 140, (200, 4)).astype(np.float32)
    for given, size in (((96, 128), (200, 333)), ((128, 96), (65, 47)), ((128, 128), (128, 128))):
        expected = scale_boxes(given, torch.from_numpy(boxes.copy()), size).numpy()
        np.testing.assert_array_equal(detector._in_source(boxes.copy(), given, size), expected)


def test_activation_in_place_gives_the_same_bits() -> None:
    network = Detector(TracksConfig(image_size=128, backend="pytorch"), "cpu")._backend.network  # type: ignore[attr-defined]
    frames = torch.rand(4, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    in_place = [layer for layer in network.modules() if isinstance(layer, torch.nn.SiLU) and layer.inplace]
    assert in_place
    with torch.inference_mode():
        fast = network(frames)[0].clone()
        for layer in in_place:
            layer.inplace = False
        assert torch.equal(fast, network(frames)[0])


def test_one_trackers_options_are_not_the_next_ones() -> None:
    assert make_tracker(TracksConfig(tracker_options={"track_buffer": 7})).args.track_buffer == 7
    assert make_tracker(TracksConfig()).args.track_buffer == 30

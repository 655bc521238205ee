"""The shipped models reach the figures of MODELS.md on unseen videos."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tools.world_models import train_detector
from tools.world_models.augment import CLIP_FRAMES, STILL, Augmentation, centre_clips, sample_batch
from tools.world_models.frame_pool import LabelledFrame, augment, labelled_frames, letterbox
from tools.world_models.measure import class_probabilities, shipped_detector
from tools.world_models.pool import ClipPool, clip_pool
from vtcav_ray.world import asset
from vtcav_ray.world.rules import KINDS, MOTION_ONLY, REVERSE_LABEL

UNSEEN_SEED = 424_242


@pytest.fixture(scope="module")
def clips() -> ClipPool:
    return clip_pool(UNSEEN_SEED, 208)


@pytest.fixture(scope="module")
def forwards(clips: ClipPool) -> np.ndarray:
    return class_probabilities(centre_clips(clips))


@pytest.mark.full
def test_recogniser_knows_every_class(clips: ClipPool, forwards: np.ndarray) -> None:
    right = forwards.argmax(1) == clips.labels_N
    assert right.mean() >= 0.95
    for number, label in enumerate(MOTION_ONLY.labels):
        assert right[clips.labels_N == number].mean() >= 0.9, label


@pytest.mark.full
def test_a_reversed_clip_is_the_opposite_class(clips: ClipPool) -> None:
    backwards = class_probabilities(centre_clips(clips)[:, :, ::-1]).argmax(1)
    for number, label in enumerate(MOTION_ONLY.labels):
        opposite = MOTION_ONLY.labels.index(REVERSE_LABEL[label])
        assert (backwards[clips.labels_N == number] == opposite).mean() >= 0.9, label


@pytest.mark.full
def test_a_frozen_clip_tells_nothing(clips: ClipPool, forwards: np.ndarray) -> None:
    middle = centre_clips(clips)[:, :, CLIP_FRAMES // 2 : CLIP_FRAMES // 2 + 1]
    frozen = class_probabilities(np.repeat(middle, CLIP_FRAMES, axis=2))
    assert (frozen.argmax(1) == clips.labels_N).mean() < 0.45
    assert frozen.max(1).mean() < 0.6 < forwards.max(1).mean()


@pytest.mark.full
def test_probabilities_are_graded(forwards: np.ndarray) -> None:
    logits = np.log(forwards) - np.log(forwards).mean(1, keepdims=True)
    assert logits.max() < 8, "a saturated model's gradients say little"
    assert forwards.max(1).std() > 0.005


def test_weights_are_small_and_read_without_pickle() -> None:
    names = ("recogniser.py", "recogniser.pth", "recogniser_labels.txt", "detector.yaml", "detector.pt", "MODELS.md")
    assert sum(asset(name).stat().st_size for name in names) < 10_000_000
    checkpoint = torch.load(asset("recogniser.pth"), weights_only=True)
    assert tuple(checkpoint["meta"]["classes"]) == MOTION_ONLY.labels
    assert tuple(asset("recogniser_labels.txt").read_text().split()) == MOTION_ONLY.labels
    assert shipped_detector().names == dict(enumerate(KINDS))
    unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(asset("detector.pt"))
    assert all(name.startswith(("torch.nn.", "ultralytics.nn.")) for name in unsafe), unsafe


def test_ultralytics_own_loader_takes_the_detector() -> None:
    from ultralytics import YOLO

    model = YOLO(str(asset("detector.pt")))
    assert model.task == "detect"
    assert model.names == dict(enumerate(KINDS))
    assert model.overrides["imgsz"] == 128


@pytest.fixture(scope="module")
def frames() -> list[LabelledFrame]:
    return labelled_frames(UNSEEN_SEED + 1, 96, 2, crf=18)


@pytest.mark.full
def test_detector_finds_objects_on_unseen_frames(frames: list[LabelledFrame]) -> None:
    report = train_detector.evaluate(shipped_detector(), frames)
    assert report["mAP50"] >= 0.9, report
    assert report["recall"] >= 0.85, report
    assert report["precision"] >= 0.85, report
    assert all(report[f"AP50 {kind}"] >= 0.85 for kind in KINDS), report


@pytest.mark.full
def test_detector_finds_objects_that_the_edge_cuts(frames: list[LabelledFrame]) -> None:
    cut = []
    for frame in frames:
        height, width = frame.image_HW3.shape[:2]
        low, high = frame.boxes_N4[:, :2].min(1), (np.array([width, height]) - frame.boxes_N4[:, 2:]).min(1)
        if ((low <= 0) | (high <= 0)).any():
            cut.append(frame)
    assert len(cut) > 20
    assert train_detector.evaluate(shipped_detector(), cut)["mAP50"] >= 0.85


@pytest.mark.full
def test_evaluation_needs_no_compiled_torchvision(frames: list[LabelledFrame]) -> None:
    pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))  # Ultralytics then takes its NMS
    assert train_detector.evaluate(shipped_detector(), frames[:8])["mAP50"] > 0.5


def test_a_perfect_detection_is_a_hit_and_others_are_not() -> None:
    image = np.zeros((128, 128, 3), np.uint8)
    truth = LabelledFrame(image, np.array([[10, 10, 50, 50]], np.float32), np.array([2]))
    found = np.array(
        [
            [10, 10, 50, 50, 0.9, 2],
            [10, 10, 50, 50, 0.8, 2],  # a second detection of the same object
            [10, 10, 50, 50, 0.7, 1],  # the wrong kind
            [60, 60, 90, 90, 0.6, 2],  # elsewhere
        ],
        np.float32,
    )
    hits = train_detector.match(found, truth)
    assert hits.tolist() == [[True] * 10, [False] * 10, [False] * 10, [False] * 10]
    shifted = found[:1] + np.array([[10, 0, 10, 0, 0, 0]], np.float32)  # IoU 0.6
    assert train_detector.match(shifted, truth)[0].sum() == 3


def test_augmented_boxes_stay_on_their_object() -> None:
    image = np.zeros((80, 100, 3), np.uint8)
    image[20:50, 30:70] = 255
    frame = LabelledFrame(image, np.array([[30, 20, 70, 50]], np.float32), np.array([0]))
    rng = np.random.default_rng(0)
    for moved in [letterbox(frame)] + [augment(frame, rng) for _ in range(20)]:
        # The border is grey, the ground is dark, and the object is the brightest remaining part.
        level = moved.image_HW3.astype(int).sum(2)
        rows, columns = np.nonzero(level >= 0.9 * level.max())
        x1, y1, x2, y2 = moved.boxes_N4[0]
        assert np.abs(np.array([columns.min() - x1, rows.min() - y1])).max() <= 2
        assert np.abs(np.array([columns.max() + 1 - x2, rows.max() + 1 - y2])).max() <= 2


@pytest.mark.slow
def test_training_clips_carry_the_class_of_their_motion() -> None:
    """The label follows the true motion of a bright square that moves right, in every rotation and reflection."""
    frames = np.zeros((1, 32, 64, 64, 3), np.uint8)
    paths = np.zeros((1, 32, 2), np.float32)
    for t in range(32):
        frames[0, t, 28:36, t + 8 : t + 16] = 255
        paths[0, t] = (t + 12, 32)
    right = MOTION_ONLY.labels.index("push_right")
    pool = ClipPool(frames, np.array([32]), np.array([right]), paths, np.array([4], np.float32))
    batch, targets, maps = sample_batch(pool, 200, Augmentation(zoom=0.5, frozen=0.0), np.random.default_rng(1))
    seen = set()
    for clip, target, map_THW in zip(batch, targets, maps, strict=True):
        first, last = clip[0, 0].astype(int), clip[0, -1].astype(int)
        if min(first.max() - first.min(), last.max() - last.min()) < 100:
            continue  # the zoom moved the square out of view
        (y1, x1), (y2, x2) = (np.argwhere(f > (f.min() + f.max()) / 2).mean(0) for f in (first, last))
        way = (x2 - x1, y2 - y1)
        axis = int(abs(way[1]) > abs(way[0]))
        reported = MOTION_ONLY.labels[int(target.argmax())]
        assert reported == (("push_left", "push_right"), ("lift", "put_down"))[axis][int(way[axis] > 0)]
        assert set(np.unique(map_THW)) <= {int(target.argmax()), STILL}
        seen.add(reported)
    assert seen == set(MOTION_ONLY.labels)

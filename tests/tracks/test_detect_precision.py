"""The precision of a detector."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.tracks.detect import Detector


@pytest.mark.slow
def test_reduced_precision_changes_boxes_little() -> None:
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 96, 128, 3), np.uint8))
    exact, reduced = (
        Detector(TracksConfig(image_size=128, precision=precision, backend="pytorch"), "cpu")._backend(frames, 0.0)
        for precision in ("float32", "bfloat16")
    )
    for one, other in zip(exact, reduced, strict=True):
        assert one.detections.dtype == other.detections.dtype == torch.float32
        assert not torch.equal(one.detections, other.detections)
        assert (one.detections[:4] - other.detections[:4]).abs().max() < 5  # pixels
        assert (one.detections[4:] - other.detections[4:]).abs().max() < 0.1


def test_an_export_keeps_its_precision() -> None:
    with pytest.raises(ConfigError, match=r"`tracks\.precision`: d\.onnx has the precision"):
        Detector(TracksConfig(weights="d.onnx", precision="bfloat16"), "cpu")

"""On a CPU, a batch of frames runs in pieces."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vtcav_ray.config import TracksConfig
from vtcav_ray.tracks.backends import TorchBackend
from vtcav_ray.tracks.detect import Detector
from vtcav_ray.tracks.layouts import Rows


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "shapes"), [(32, [16, 16]), (16, [16, 16]), (8, [8, 8]), (20, [20])])
def test_batches_run_in_pieces_of_one_size(batch_size: int, shapes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    frames = list(np.random.default_rng(0).integers(0, 256, (sum(shapes) - 3, 64, 96, 3), np.uint8))
    detector = Detector(TracksConfig(image_size=96, confidence=0.001, batch_size=batch_size, backend="pytorch"), "cpu")
    kind, seen = type(detector._backend), []
    run = kind.__call__

    def watched(backend: TorchBackend, batch: torch.Tensor, confidence: float) -> list[Rows]:
        seen.append(len(batch))
        return run(backend, batch, confidence)

    monkeypatch.setattr(kind, "__call__", watched)
    pieces = detector(frames)
    assert seen == shapes
    monkeypatch.setattr(detector, "_piece", batch_size)
    for one, other in zip(pieces, detector(frames), strict=True):
        assert len(one.boxes) > 0
        # Equal in every bit with AVX-512. Other processors may have other kernels for other batches.
        assert np.allclose(one.boxes, other.boxes, atol=0.01)
        assert np.allclose(one.confidence, other.confidence, atol=1e-4)
        if torch.backends.cpu.get_cpu_capability() == "AVX512":
            assert np.array_equal(one.boxes, other.boxes)
            assert np.array_equal(one.confidence, other.confidence)

"""The check by intervention, on the packaged model: a small shift has the effect that is predicted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vtcav_ray.activations import Extractor
from vtcav_ray.config import ModelConfig
from vtcav_ray.intervene.effect import intervention, layer_projection
from vtcav_ray.models import Recogniser, load_recogniser
from vtcav_ray.tcav.gains import with_gains

K = 2


@pytest.fixture(scope="module")
def packaged() -> Recogniser:
    return load_recogniser(ModelConfig())


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    return list(np.random.RandomState(3).randint(0, 256, (3, 16, 64, 64, 3), np.uint8))


def small_shift(gradients_BD: np.ndarray, by: float, slope_of: np.ndarray) -> np.ndarray:
    """Make a direction, half random and half gradient, of a size that moves the logit by about `by`."""
    rng = np.random.default_rng(0)
    mean = gradients_BD.mean(axis=0)
    w = mean / np.linalg.norm(mean) + rng.normal(size=len(mean)) / np.sqrt(len(mean))
    return np.asarray(w * by / (slope_of @ w))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "spec"), [("late", "mean"), ("middle", "time"), ("middle", "grid:2"), ("late", "sketch:64")]
)
def test_small_shifts_move_the_logit_as_predicted(
    packaged: Recogniser, clips: list[np.ndarray], layer: str, spec: str
) -> None:
    extracted = Extractor(packaged, [layer], spec, sketch_seed=1).extract(clips, [[K]] * len(clips))
    gradients = extracted.gradients[layer]
    projection = layer_projection(packaged, clips[0], layer, spec, 1)
    slope = projection.solve(torch.from_numpy(gradients.mean(axis=0, dtype=np.float64))[None])[0].numpy()
    shift = small_shift(gradients, 0.02, slope)
    found = intervention(packaged, clips, layer, projection, shift, K, gradients, [-1.0, 1.0])
    assert found.num_videos == 3
    assert found.predicted == pytest.approx([-0.02, 0.02])
    assert found.real == pytest.approx(found.predicted, rel=0.2)
    # In the sum of both directions the curvature cancels.
    assert found.real[1] - found.real[0] == pytest.approx(0.04, rel=0.03)
    if spec in ("mean", "time"):
        assert found.gain == pytest.approx(projection.count)  # type: ignore[attr-defined]
    if not spec.startswith("sketch"):
        assert extracted.gains[layer] == pytest.approx(found.gain)


def test_at_the_head_the_model_is_linear_so_any_step_is_exact(packaged: Recogniser, clips: list[np.ndarray]) -> None:
    gradients = Extractor(packaged, ["head"], "mean").extract(clips, [[K]] * 3).gradients["head"]
    projection = layer_projection(packaged, clips[0], "head", "mean", 0)
    shift = np.random.default_rng(0).normal(size=projection.d)
    found = intervention(packaged, clips, "head", projection, shift, K, gradients, [0.1, 5.0], groups=["a", "b", "b"])
    assert found.real == pytest.approx(found.predicted, rel=1e-3)
    assert found.num_videos == 2
    assert found.real_sd == pytest.approx(0.0, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["middle@moving", "late@still"])
def test_a_shift_where_things_move_moves_the_logit_as_predicted(
    packaged: Recogniser, clips: list[np.ndarray], layer: str
) -> None:
    extracted = Extractor(packaged, [layer]).extract(clips, [[K]] * len(clips))
    gradients = extracted.gradients[layer]
    projection = layer_projection(packaged, clips[0], layer, "mean", 0)
    shift = small_shift(gradients, 0.002, gradients.mean(axis=0))
    found = intervention(packaged, clips, layer, projection, shift, K, gradients, [-1.0, 1.0])
    assert found.effect == pytest.approx(0.002)
    assert found.gain > 1  # the lift moves all places, of which the mean counts 1 / gain
    assert found.predicted == pytest.approx([-0.002 * found.gain, 0.002 * found.gain])
    assert found.real[1] - found.real[0] == pytest.approx(2 * found.predicted[1], rel=0.03)
    weighed, gain = with_gains(gradients, extracted.gains[layer])  # as `scores` does
    assert gain * float((weighed @ shift).mean()) == pytest.approx(found.predicted[1], rel=1e-4)


def test_what_does_not_fit_is_refused(packaged: Recogniser, clips: list[np.ndarray]) -> None:
    projection = layer_projection(packaged, clips[0], "head", "mean", 0)
    ones = np.ones((3, projection.d))
    with pytest.raises(ValueError, match="shift must be"):
        intervention(packaged, clips, "head", projection, np.ones(3), K, ones, [1.0])
    with pytest.raises(ValueError, match="one row per clip: 2 for 3"):
        intervention(packaged, clips, "head", projection, np.ones(projection.d), K, ones[:2], [1.0])
    with pytest.raises(ValueError, match="other than 0"):
        intervention(packaged, clips, "head", projection, np.ones(projection.d), K, ones, [0.0])

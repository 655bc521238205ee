import numpy as np
import pytest
import torch

import vtcav_ray.tcav.scores as module
from vtcav_ray.cavs import train_cavs
from vtcav_ray.tcav import score
from vtcav_ray.tcav.scores import NO_CAV, ZERO_GRADIENTS

RNG = np.random.default_rng(0)
GRADIENTS = RNG.normal(size=(12, 5))
CAVS = RNG.normal(size=(7, 5)).astype(np.float32)
CAVS /= np.linalg.norm(CAVS, axis=1, keepdims=True)


def test_scores_by_hand():
    sensitivities = GRADIENTS @ CAVS.T
    scores = score(GRADIENTS, CAVS, sensitivities=True)
    assert scores.sign_count == pytest.approx((sensitivities > 0).mean(0))
    assert scores.magnitude == pytest.approx(sensitivities.mean(0), abs=1e-6)
    assert scores.sensitivities == pytest.approx(sensitivities, abs=1e-5)
    lower_median = np.sort(np.abs(sensitivities), axis=0)[5]  # of 12: torch's median is the lower of the middle two
    assert scores.scale == pytest.approx(lower_median, rel=1e-5)
    assert scores.smooth == pytest.approx((1 / (1 + np.exp(-sensitivities / lower_median))).mean(0), abs=1e-5)
    assert scores.num_videos == 12
    assert scores.reason == ("",) * 7


def test_blocks_make_no_difference(monkeypatch):
    whole = score(GRADIENTS, CAVS, sensitivities=True)
    monkeypatch.setattr(module, "_BLOCK_NUMBERS", 30)
    parts = score(GRADIENTS, CAVS, sensitivities=True)
    for name in ("sign_count", "magnitude", "smooth", "scale", "sensitivities"):
        assert np.allclose(getattr(whole, name), getattr(parts, name), atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_vectors_of_a_table_are_taken_as_they_are():
    """Arrow's arrays are read-only: no warning appears, and nothing is written."""
    rng = np.random.default_rng(0)
    gradients, cavs = rng.normal(size=(4, 3)), rng.normal(size=(5, 3)).astype(np.float32)
    expected = score(gradients, cavs).magnitude
    cavs.flags.writeable = False
    np.testing.assert_array_equal(score(gradients, cavs).magnitude, expected)


def test_a_video_counts_once_however_many_views_it_gave():
    groups = ["a"] * 9 + ["b", "c", "d"]
    averaged = np.concatenate((GRADIENTS[:9].mean(0, keepdims=True), GRADIENTS[9:]))
    by_video, direct = score(GRADIENTS, CAVS, groups=groups), score(averaged, CAVS)
    assert by_video.sign_count == pytest.approx(direct.sign_count)
    assert by_video.num_videos == 4
    assert set(np.unique(by_video.sign_count * 4)) <= {0.0, 1.0, 2.0, 3.0, 4.0}


def test_storing_projected_gradients_is_enough():
    """(P grad h)·w is the derivative of h along P^T w, and equals a finite difference through a real P and h."""
    torch.manual_seed(0)
    activation = torch.randn(4, 3, 3, 6, dtype=torch.float64, requires_grad=True)  # T', H', W', C
    weight = torch.randn(6, dtype=torch.float64)

    def logit(a):
        return torch.tanh((a * a).mean((0, 1, 2)) @ weight)

    (gradient,) = torch.autograd.grad(logit(activation), activation)
    cav = torch.randn(6, dtype=torch.float64)
    cav /= cav.norm()
    positions = 4 * 3 * 3
    direction = (cav / positions).expand_as(activation)  # P^T w for P = mean over T', H', W'
    step = 1e-6
    difference = (logit(activation + step * direction) - logit(activation - step * direction)) / (2 * step)
    projected = gradient.mean((0, 1, 2)).numpy()[None]
    assert score(projected, cav.numpy()[None]).magnitude[0] == pytest.approx(difference.item(), rel=1e-4)


def test_an_untrained_cav_and_a_dead_gradient_are_marked():
    pool = RNG.normal(size=(10, 5))
    cavs = train_cavs(pool, [[0], np.arange(5)], [np.arange(5, 10)] * 2)
    scores = score(GRADIENTS, cavs.vectors)
    assert scores.reason == (NO_CAV, "")
    assert np.isnan(scores.sign_count[0])
    assert np.isfinite(scores.sign_count[1])
    dead = score(np.zeros((4, 5)), CAVS)
    assert np.isnan(dead.sign_count).all()
    assert dead.reason == (ZERO_GRADIENTS,) * 7


@pytest.mark.parametrize(
    ("gradients", "cavs", "what"),
    [
        (np.zeros((0, 5)), CAVS, "gradients has no rows: the class has no clips"),
        (np.full((3, 5), np.nan), CAVS, "gradients has NaN"),
        (GRADIENTS, CAVS[:, :4], "cavs has d = 4, and gradients has d = 5"),
        (GRADIENTS, CAVS[0], "cavs must be"),
        (GRADIENTS, CAVS[:0], "cavs must be"),
        (GRADIENTS, np.where(np.arange(5) == 2, np.nan, CAVS), "cavs has NaN"),
        (GRADIENTS[0], CAVS, "gradients must be two-dimensional"),
    ],
)
def test_bad_input(gradients, cavs, what):
    with pytest.raises(ValueError, match=what):
        score(gradients, cavs)

import numpy as np
import pytest
import torch
from scipy import stats

import vtcav_ray.tcav.intervals as module
from vtcav_ray.tcav import score_intervals
from vtcav_ray.tcav.bootstrap import expanded_interval, weights


def test_weights_are_resamples():
    drawn = weights(7, 5000, 0, 1)
    assert torch.allclose(drawn.sum(1), torch.ones(5000))
    assert ((drawn * 7) - (drawn * 7).round()).abs().max() < 1e-5
    assert drawn.mean(0).numpy() == pytest.approx(np.full(7, 1 / 7), abs=0.005)
    assert drawn.var(0).numpy() == pytest.approx(np.full(7, (1 / 7) * (6 / 7) / 7), rel=0.1)
    assert not torch.equal(drawn, weights(7, 5000, 0, 2))


def test_expanded_percentiles_of_a_normal_mean_are_students():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(12, 1))
    resampled = weights(12, 20_000, 0, 1) @ torch.from_numpy(data).float()
    low, high = expanded_interval(resampled, data.mean(0), np.array([11.0]), np.array([np.sqrt(12 / 11)]), 0.95)
    half = 2.201 * data.std(ddof=1) / np.sqrt(12)
    assert low[0] == pytest.approx(data.mean() - half, abs=0.12 * half)
    assert high[0] == pytest.approx(data.mean() + half, abs=0.12 * half)


def test_a_handful_of_videos_falls_back_on_t():
    data = np.array([[1.0], [2.0], [4.0]])
    resampled = weights(3, 2000, 0, 1) @ torch.from_numpy(data).float()
    low, high = expanded_interval(resampled, data.mean(0), np.array([2.0]), np.array([np.sqrt(1.5)]), 0.95)
    half = 4.303 * data.std(ddof=1) / np.sqrt(3)
    assert high[0] - low[0] == pytest.approx(2 * half, rel=0.06)


def test_both_levels_widen_the_interval():
    rng = np.random.default_rng(1)
    videos, runs = 30, 20
    only_videos = np.repeat(rng.normal(size=(videos, 1)), runs, axis=1)
    only_runs = np.repeat(rng.normal(size=(1, runs)), videos, axis=0)
    low, high = score_intervals(np.concatenate((only_videos, only_runs), axis=1), runs)
    share_videos, share_runs = (only_videos > 0).mean(), (only_runs > 0).mean()
    for at, (share, count) in enumerate(((share_videos, videos), (share_runs, runs))):
        half = 2.07 * np.sqrt(share * (1 - share) / (count - 1))
        assert low[at] < share < high[at]
        assert high[at] - low[at] == pytest.approx(2 * half, rel=0.2)


def test_blocks_make_no_difference(monkeypatch):
    rng = np.random.default_rng(2)
    table = rng.normal(size=(15, 6 * 10)) + 0.3
    whole = score_intervals(table, 10)
    monkeypatch.setattr(module, "_BLOCK_NUMBERS", 1)
    assert np.allclose(score_intervals(table, 10), whole, atol=1e-6)


def test_near_an_end_the_interval_is_at_least_wilsons():
    videos, runs = 25, 50
    one_video = np.ones((videos, runs))
    one_video[0] = -1.0  # 24 of 25 videos agree in every run: 24 independent trials
    one_sign = np.ones((videos, runs))
    one_sign[0, 0] = -1.0  # the variance suggests far more trials: limited to 6 times the videos
    low, high = score_intervals(np.concatenate((one_video, one_sign), axis=1), runs)
    for at, (share, trials, freedom) in enumerate(((24 / 25, 24.0, 24.0), (1 - 1 / 1250, 150.0, None))):
        if freedom is None:
            by_video, by_run = 1 / runs**2 / videos**2, 1 / videos**2 / runs**2
            freedom = (by_video + by_run) ** 2 / (by_video**2 / 24 + by_run**2 / 49)
        t = stats.t.ppf(0.975, freedom)
        ends = np.roots([1 + t**2 / trials, -(2 * share + t**2 / trials), share**2])
        assert low[at] == pytest.approx(min(ends), abs=1e-6)
        assert high[at] >= min(max(ends), 1.0) - 1e-6


def test_no_resample_differs_where_all_signs_agree():
    low, high = score_intervals(np.concatenate((np.ones((20, 10)), -np.ones((20, 10))), axis=1), 10)
    end = 0.025 ** (1 / 10)
    assert (low[0], high[0]) == (pytest.approx(end), 1.0)
    assert (low[1], high[1]) == (0.0, pytest.approx(1 - end))


def test_marked_cells():
    assert np.isnan(score_intervals(np.ones((1, 10)), 10)).all(), "a single video"
    assert np.isnan(score_intervals(np.ones((5, 3)), 1)).all(), "a single run"
    table = np.random.default_rng(0).normal(size=(9, 8))
    table[:, 1] = np.nan
    low, high = score_intervals(table, 4)
    assert np.isnan([low[0], high[0]]).all()
    assert np.isfinite([low[1], high[1]]).all()


@pytest.mark.parametrize(
    ("table", "runs", "options"),
    [
        (np.ones((3, 10)), 4, {}),
        (np.ones(10), 5, {}),
        (np.ones((0, 10)), 5, {}),
        (np.ones((3, 10)), 0, {}),
        (np.ones((3, 10)), 5, {"bootstrap": 1}),
        (np.ones((3, 10)), 5, {"confidence": 0.0}),
    ],
)
def test_bad_input(table, runs, options):
    with pytest.raises(ValueError, match="must be"):
        score_intervals(table, runs, **options)

import numpy as np
import pytest

from vtcav_ray.cavs import accuracy_curve


def test_accuracy_grows_with_the_number_of_clips_and_stays_at_chance_without_a_concept():
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(400, 20))
    pool[:200, 0] += 1.5
    sides = np.arange(200), np.arange(200, 400)
    curve = accuracy_curve(pool, *sides, [4, 20, 100], repeats=200)
    assert curve.sizes.tolist() == [4, 20, 100]
    assert curve.accuracy[0] < curve.accuracy[1] < curve.accuracy[2]
    assert curve.sd[0] > curve.sd[2]
    nothing = accuracy_curve(rng.normal(size=(400, 20)), *sides, [20], repeats=60)
    assert nothing.accuracy[0] == pytest.approx(0.5, abs=0.05)


def test_sizes_count_videos():
    rng = np.random.default_rng(0)
    pool, groups = rng.normal(size=(40, 3)), np.arange(40) // 4
    with pytest.raises(ValueError, match="between 2 and 5"):
        accuracy_curve(pool, np.arange(20), np.arange(20, 40), [6], groups=groups)
    assert np.isfinite(accuracy_curve(pool, np.arange(20), np.arange(20, 40), [5], groups=groups).accuracy).all()

from __future__ import annotations

import numpy as np
import pytest

from vtcav_ray.errors import InputError
from vtcav_ray.video.sample import random_clip, spread_clips


def centre_clip(num_frames: int, clip_frames: int, interval: int) -> np.ndarray:
    return spread_clips(num_frames, clip_frames, interval, 1)[0]


def test_clips_are_spread_from_the_start_to_the_end() -> None:
    starts = spread_clips(100, 8, 4, 4)[:, 0]
    assert starts.tolist() == [0, 24, 47, 71]


def test_centre_of_a_long_video() -> None:
    frames = centre_clip(300, 32, 2)
    assert frames.tolist() == list(range(118, 118 + 64, 2))


def test_short_video_is_looped() -> None:
    assert centre_clip(10, 16, 1).tolist() == [*range(10), *range(6)]


@pytest.mark.parametrize("sample", [centre_clip, lambda n, t, i: random_clip(n, t, i, np.random.default_rng(0))])
def test_floor_of_half_a_clip(sample) -> None:
    assert len(sample(8, 16, 2)) == 16
    with pytest.raises(InputError) as caught:
        sample(7, 16, 2)
    assert caught.value.kind == "too_short"


def test_random_clip_stays_inside_and_is_seeded() -> None:
    starts = set()
    for seed in range(50):
        frames = random_clip(40, 16, 2, np.random.default_rng(seed))
        assert frames.max() < 40
        assert np.all(np.diff(frames) == 2)
        starts.add(int(frames[0]))
        assert np.array_equal(frames, random_clip(40, 16, 2, np.random.default_rng(seed)))
    assert min(starts) == 0
    assert max(starts) == 9


@pytest.mark.slow
@pytest.mark.parametrize("num_frames", [16, 20, 47, 63, 64, 280, 300])
@pytest.mark.parametrize(("clip_frames", "interval"), [(16, 1), (32, 2), (8, 4), (1, 1)])
@pytest.mark.parametrize("clips", [1, 2, 4, 10])
def test_same_frames_as_mmaction2(num_frames: int, clip_frames: int, interval: int, clips: int) -> None:
    from vtcav_ray.models.mmaction_import import import_mmaction

    import_mmaction()
    from mmaction.datasets.transforms import SampleFrames

    theirs = SampleFrames(clip_frames, interval, num_clips=clips, test_mode=True)
    wanted = theirs({"total_frames": num_frames, "start_index": 0})["frame_inds"]
    assert np.array_equal(spread_clips(num_frames, clip_frames, interval, clips).ravel(), wanted)

"""Select the frames of a video that make up a clip."""

from __future__ import annotations

import numpy as np

from vtcav_ray.errors import InputError

FALLBACK_FPS = 25.0  # for a video whose file states no frame rate


def spread_clips(num_frames: int, clip_frames: int, interval: int, count: int) -> np.ndarray:
    """Return frame indices of `count` clips spread evenly over a video: int32 [count, clip_frames].

    A single clip lies in the middle. The indices equal those of MMAction2's `SampleFrames(clip_len, frame_interval,
    num_clips=count, test_mode=True)`, also for a video that is shorter than the clip: it is looped from its start
    (`out_of_bound_opt="loop"`), so that a score describes what the recogniser would see. A loop adds a jump that the
    video does not have, so a video with fewer frames than half of `clip_frames` is refused.

    Raises:
        InputError: `too_short`: fewer than half of `clip_frames` frames.
    """
    check_long_enough(num_frames, clip_frames)
    if clip_frames == 1:
        return ((np.arange(count)[:, None] + 0.5) * (num_frames / count)).astype(np.int32)
    last = max(num_frames - ((clip_frames - 1) * interval + 1), 0)
    starts = np.round(np.arange(count) * (last / (count - 1))) if count > 1 else np.array([last // 2])
    return ((starts[:, None] + np.arange(clip_frames) * interval) % num_frames).astype(np.int32)


def random_clip(num_frames: int, clip_frames: int, interval: int, rng: np.random.Generator) -> np.ndarray:
    """Return frame indices of one clip at a random start, looped if the video is too short: int32 [clip_frames].

    Raises:
        InputError: `too_short`: fewer than half of `clip_frames` frames.
    """
    check_long_enough(num_frames, clip_frames)
    span = (clip_frames - 1) * interval + 1
    start = int(rng.integers(0, max(num_frames - span, 0) + 1))
    return ((start + np.arange(clip_frames) * interval) % num_frames).astype(np.int32)


def check_long_enough(num_frames: int, clip_frames: int) -> None:
    """Raise `InputError("too_short")` if a video has fewer than half of a clip's frames."""
    if num_frames < (clip_frames + 1) // 2:
        raise InputError(
            "too_short",
            f"The video has {num_frames} frames; a clip of {clip_frames} frames needs at least "
            f"{(clip_frames + 1) // 2} (it is looped up to its length).",
        )

"""Default limits for decoding one video. The config sets most of them; see `vtcav_ray.video.decode.Video`."""

from __future__ import annotations

MAX_FRAMES = 20_000
MAX_PIXELS = 8192 * 8192
MAX_CPU_SECONDS = 900.0
MAX_RESULT_BYTES = 4 * 2**30  # of the frames returned by one call
MAX_HELD_BYTES = 1_600_000_000  # of the frames held in memory at a time while one video is decoded
MAX_POSITION = 5_000_000  # frames of a file of which only segments are read: 46 hours at 30 frames per second

"""All eight right-angled display matrices, in decoding, tracking and clips, against FFmpeg's own `-autorotate`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.odd_videos import ORIENTATIONS, oriented, shown_as
from vtcav_ray.video.decode import decode_frames

EACH = pytest.mark.parametrize("name", ORIENTATIONS)


def corners(count: int = 12) -> np.ndarray:
    """Draw frames of 64x96 with a different grey in each quarter: no two orientations look alike."""
    frames = np.full((count, 64, 96, 3), 30, np.uint8)
    frames[:, :32, 48:], frames[:, 32:, :48], frames[:, 32:, 48:] = 90, 150, 220
    return frames


@EACH
def test_every_orientation_is_shown_as_the_matrix_says(name: str) -> None:
    stored, _ = decode_frames(oriented(corners(), "upright"))
    frames, info = decode_frames(oriented(corners(), name))
    assert np.array_equal(frames[7], shown_as(stored[7], name))
    assert (info.height, info.width) == frames.shape[1:3]


@EACH
@pytest.mark.parametrize("container", ["mov", "matroska"])
def test_other_containers_agree(name: str, container: str) -> None:
    frames, _ = decode_frames(oriented(corners(), name, container=container), [5])
    assert np.array_equal(frames[0], decode_frames(oriented(corners(), name), [5])[0][0])


@EACH
def test_ffmpeg_shows_the_same(name: str, tmp_path: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("there is no ffmpeg here")
    path = tmp_path / "a.mp4"
    path.write_bytes(oriented(corners(), name))
    frames, info = decode_frames(str(path))
    made = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        check=True,
        capture_output=True,
    ).stdout
    theirs = np.frombuffer(made, np.uint8).reshape(-1, info.height, info.width, 3)
    assert len(theirs) == len(frames)
    assert np.abs(theirs.astype(int) - frames).max() <= 4  # conversion to RGB is rounded in another place

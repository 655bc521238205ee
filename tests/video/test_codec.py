from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.drawn import square_video
from tests.helpers.examples import examples
from vtcav_ray.errors import InputError
from vtcav_ray.video.codec import decode_clip, encode_clip
from vtcav_ray.video.decode import decode_frames


@given(shape=st.tuples(*[st.integers(1, 9)] * 3), seed=st.integers(0, 99), levels=st.sampled_from([2, 256]))
@examples(40)
def test_any_clip_comes_back_exactly(shape: tuple[int, int, int], seed: int, levels: int) -> None:
    clip = np.random.default_rng(seed).integers(0, levels, (*shape, 3), np.uint8)
    encoded = encode_clip(clip)
    assert encoded == encode_clip(clip.copy())
    assert np.array_equal(decode_clip(*encoded), clip)


def test_a_still_clip_costs_one_frame() -> None:
    frames, _ = square_video([(5, 5)])
    one = len(encode_clip(frames)[1])
    still = encode_clip(frames.repeat(32, 0))
    assert len(still[1]) <= one + 4 * 31
    assert np.array_equal(decode_clip(*still), frames.repeat(32, 0))


def test_single_frames_are_decoded_alone() -> None:
    frames, _ = square_video([(4 * i, 3) for i in range(12)])
    clip = np.concatenate((frames, frames[::-1]))
    encoded = encode_clip(clip)
    assert len(encoded[1]) < len(encode_clip(frames)[1]) + 100
    assert np.array_equal(decode_clip(*encoded, positions=[23, 5, 5]), clip[[23, 5, 5]])


@pytest.mark.parametrize(
    "clip", [np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4, 3)), np.zeros((0, 4, 4, 3), np.uint8)]
)
def test_what_is_no_clip_is_refused(clip: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        encode_clip(clip)


def test_damaged_bytes_are_an_input_error() -> None:
    encoding, encoded = encode_clip(square_video([(4 * i, 3) for i in range(4)])[0])
    for bad in (b"", encoded[:10], encoded[:40], encoded[:-5], encoded + b"x", b"\xff" * len(encoded)):
        with pytest.raises(InputError):
            decode_clip(encoding, bad)
    with pytest.raises(InputError, match="webp-frames"):
        decode_clip("gif", encoded)
    broken = bytearray(encoded)
    broken[80:90] = bytes(10)
    with pytest.raises(InputError):
        decode_clip(encoding, bytes(broken))


@pytest.mark.shared
def test_real_clip_is_exact(shared_data: Path) -> None:
    frames, _ = decode_frames(str(shared_data / "videos/scenes/carphone_pristine.mp4"), range(20, 28))
    encoding, encoded = encode_clip(frames)
    assert np.array_equal(decode_clip(encoding, encoded), frames)
    assert len(encoded) < 0.6 * frames.nbytes

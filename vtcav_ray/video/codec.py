"""Lossless encoding of clips as bytes: each DISTINCT frame is stored once, as lossless WebP.

Why WebP: x264 RGB at qp 0, FFV1, Ut Video, PNG, zstd on frame differences and WebP were measured on real clips. WebP
(fastest setting) is the second smallest after FFV1 and decodes 2 to 5 times faster than x264 or FFV1. It needs no
encoder state: repeated frames are stored once, so a still clip costs one frame.

Layout, little endian: T, H, W, U (uint32 each); index of each frame among the U distinct ones (T x uint32); length of
each of the U blobs (U x uint32); the blobs.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from vtcav_ray.errors import InputError

ENCODING = "webp-frames"
_MAX_SIDE = 16383  # WebP's own limit
_MAX_BYTES = 8 * 2**30


def encode_clip(clip: np.ndarray) -> tuple[str, bytes]:
    """Encode a clip uint8 [T, H, W, 3]: (encoding name, bytes). The same clip gives the same bytes.

    Raises:
        ValueError: the clip is not uint8 [T, H, W, 3], is empty, or has a side over 16383 pixels.
    """
    if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[3] != 3 or 0 in clip.shape:
        raise ValueError(f"a clip is uint8 [T, H, W, 3], not {clip.dtype} {list(clip.shape)}")
    frames, height, width = clip.shape[:3]
    if max(height, width) > _MAX_SIDE:
        raise ValueError(f"frames of {width}x{height} are too large to encode; the limit is {_MAX_SIDE} per side")
    place: dict[bytes, int] = {}
    blobs: list[bytes] = []
    order = np.empty(frames, "<u4")
    for t, frame in enumerate(clip):
        raw = frame.tobytes()
        if raw not in place:
            place[raw] = len(blobs)
            buffer = io.BytesIO()
            Image.frombytes("RGB", (width, height), raw).save(buffer, "WEBP", lossless=True, quality=0, method=0)
            blobs.append(buffer.getvalue())
        order[t] = place[raw]
    head = np.array([frames, height, width, len(blobs)], "<u4")
    lengths = np.array([len(b) for b in blobs], "<u4")
    return ENCODING, b"".join((head.tobytes(), order.tobytes(), lengths.tobytes(), *blobs))


def decode_clip(encoding: str, encoded: bytes, positions: Sequence[int] | None = None) -> np.ndarray:
    """Decode a clip uint8 [T, H, W, 3], or only its frames at `positions`.

    Raises:
        InputError: `decode`: the encoding is unknown, or the bytes are not an encoded clip.
        IndexError: a position is outside [0, T).
    """
    if encoding != ENCODING:
        raise InputError("decode", f"A clip is stored as {encoding!r}; this version reads {ENCODING!r}.")
    if len(encoded) < 16:
        raise InputError("decode", f"A stored clip has only {len(encoded)} bytes.")
    frames, height, width, different = (int(n) for n in np.frombuffer(encoded, "<u4", 4))
    head = 16 + 4 * (frames + different)
    if not 0 < different <= frames or len(encoded) < head or frames * height * width * 3 > _MAX_BYTES:
        raise InputError("decode", "A stored clip's head does not fit its bytes.")
    order = np.frombuffer(encoded, "<u4", frames, 16).astype(np.int64)
    ends = head + np.frombuffer(encoded, "<u4", different, 16 + 4 * frames).cumsum(dtype=np.int64)
    if len(encoded) != ends[-1] or order.max() >= different:
        raise InputError("decode", "A stored clip's length does not fit its head.")
    wanted = order if positions is None else order[np.asarray(positions, np.int64)]
    clip = np.empty((len(wanted), height, width, 3), np.uint8)
    view = memoryview(encoded)
    first: dict[int, int] = {}
    for t, blob in enumerate(wanted.tolist()):
        if blob in first:
            clip[t] = clip[first[blob]]
            continue
        first[blob] = t
        begin = head if blob == 0 else int(ends[blob - 1])
        clip[t] = _decode_frame(view[begin : int(ends[blob])], (width, height))
    return clip


def _decode_frame(blob: memoryview, size: tuple[int, int]) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(blob), formats=("WEBP",)) as image:
            if image.size != size:
                raise InputError("decode", "A stored clip's frame has a different size from that in its head.")
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise InputError("decode", f"A stored clip's frame does not decode: {error}") from error

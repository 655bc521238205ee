"""Small moving pictures: animated WebP, which every browser plays in an `<img>`."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """Places of at most `most` of `count` frames, the first and the last among them."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(np.int64)


def animated_webp(images: Sequence[Image.Image], milliseconds: int, quality: int, method: int) -> bytes:
    """The images as one file that plays for ever; a single one is a still picture.

    Args:
        images: of one size, at least one.
        milliseconds: that each is shown.
        quality: 0 to 100.
        method: 0 (quick) to 6 (small).
    """
    sink = io.BytesIO()
    images[0].save(
        sink,
        "WEBP",
        save_all=True,
        append_images=list(images[1:]),
        duration=milliseconds,
        loop=0,
        quality=quality,
        method=method,
        minimize_size=False,
    )
    return sink.getvalue()

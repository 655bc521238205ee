"""Small animations as WebP, which every browser plays in an `<img>`."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """Return positions of up to `most` of `count` frames, evenly spaced, including the first and the last."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(np.int64)


def animated_webp(images: Sequence[Image.Image], milliseconds: int, quality: int, method: int) -> bytes:
    """Encode images as one file that loops forever; a single image gives a still picture.

    Args:
        images: at least one, all of one size.
        milliseconds: duration of each image.
        quality: 0 to 100.
        method: 0 (fast) to 6 (small).
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

"""Clips for the small recogniser."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="session")
def clips() -> list[np.ndarray]:
    """Five clips of 16 frames; the last ones are wider and taller than the model's input."""
    stream = np.random.RandomState(1)
    sizes = [(64, 64), (64, 64), (64, 64), (64, 90), (100, 70)]
    return [stream.randint(0, 256, (16, h, w, 3), np.uint8) for h, w in sizes]

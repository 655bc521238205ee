"""The pointing game: does a map peak where the object is?"""

from __future__ import annotations

import numpy as np


def pointing(maps_Thw: np.ndarray, inside_Thw: np.ndarray) -> float:
    """Return the share of frames whose map peaks inside a box (the pointing game), among those with a box and a map."""
    usable = (maps_Thw.max((1, 2)) > 0) & (inside_Thw.max((1, 2)) > 0)
    if not usable.any():
        return float("nan")
    flat, inside = maps_Thw[usable].reshape(usable.sum(), -1), inside_Thw[usable].reshape(usable.sum(), -1)
    return float(inside[np.arange(len(flat)), flat.argmax(1)].mean())

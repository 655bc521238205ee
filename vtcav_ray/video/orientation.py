"""How a decoded frame must be turned and mirrored to look as in a player: the file's display matrix.

The matrix maps a stored pixel (x, y) to the screen, `x' = a x + c y` and `y' = b x + d y`. Phones and editors write its
eight right-angled forms: four rotations, each of them also mirrored. Other angles are rounded to one of these. FFmpeg's
command line applies the same eight (`-autorotate`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from av.sidedata.sidedata import SideDataContainer

_side_data_of: Any = SideDataContainer  # PyAV's type stub does not name its argument
_NUMBERS = 9  # int32: a b u, c d v, x y w


@dataclass(frozen=True)
class Orientation:
    """Swap rows and columns first, then reverse the columns (left and right) and the rows (top and bottom)."""

    transposed: bool = False
    columns_reversed: bool = False
    rows_reversed: bool = False

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Return the image [H, W, ...] as it is shown; if it is transposed, [W, H, ...]. A new array unless upright."""
        if self == UPRIGHT:
            return image
        if self.transposed:
            image = image.swapaxes(0, 1)
        rows = slice(None, None, -1 if self.rows_reversed else 1)
        columns = slice(None, None, -1 if self.columns_reversed else 1)
        return np.ascontiguousarray(image[rows, columns])


UPRIGHT = Orientation()


def orientation_of(frame: Any) -> Orientation:
    """Return the orientation that the display matrix of a PyAV frame asks for.

    The container's matrix is on every frame. A frame without one, or with one that shows nothing, is upright.
    """
    # `frame.side_data` would hold the frame, and be held by it, until the garbage collector runs.
    found = _side_data_of(frame).get("DISPLAYMATRIX")
    if found is None or len(data := bytes(found)) < 4 * _NUMBERS:
        return UPRIGHT
    a, b, _, c, d = (int.from_bytes(data[i : i + 4], sys.byteorder, signed=True) for i in range(0, 20, 4))
    if a * d == b * c:
        return UPRIGHT
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transposed=True, columns_reversed=c < 0, rows_reversed=b < 0)
    return Orientation(columns_reversed=a < 0, rows_reversed=d < 0)

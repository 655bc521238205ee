"""The pictures of the object kinds: `Look` -> colour and coverage, with NumPy and OpenCV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vtcav_ray.world.scene import Look

_FINE = 4  # shapes are drawn larger by this factor, then averaged down for smooth edges
_MARGIN = 1.35  # size of the canvas relative to the object: room for rotation and stretching


@dataclass(frozen=True, eq=False)
class Sprite:
    """The picture of one object.

    Attributes:
        colour_SS3: float32, premultiplied by the coverage, 0..255, RGB.
        cover_SS: float32 coverage, 0..1.
        box: (x1, y1, x2, y2) of the covered part, px in the sprite, right and bottom edge excluded.
    """

    colour_SS3: NDArray[np.float32]
    cover_SS: NDArray[np.float32]
    box: tuple[int, int, int, int]


class _Canvas:
    """A square drawing board in coordinates 0..1, with a mask and a brightness for each point."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.mask = np.zeros((side, side), np.uint8)
        self.shade = np.ones((side, side), np.float32)

    def polygon(self, points: list[tuple[float, float]], shade: float = 1.0) -> None:
        corners = np.round(np.array(points) * self.side).astype(np.int32)
        cv2.fillPoly(self.mask, [corners], 255)
        cv2.fillPoly(self.shade, [corners], shade)

    def ellipse(
        self, middle: tuple[float, float], axes: tuple[float, float], shade: float = 1.0, thick: float = 0
    ) -> None:
        centre = (round(middle[0] * self.side), round(middle[1] * self.side))
        radii = (round(axes[0] * self.side), round(axes[1] * self.side))
        thickness = max(1, round(thick * self.side)) if thick else -1
        cv2.ellipse(self.mask, centre, radii, 0, 0, 360, 255, thickness)
        cv2.ellipse(self.shade, centre, radii, 0, 0, 360, shade, thickness)

    def line(self, start: tuple[float, float], end: tuple[float, float], thick: float, shade: float = 1.0) -> None:
        first = (round(start[0] * self.side), round(start[1] * self.side))
        last = (round(end[0] * self.side), round(end[1] * self.side))
        thickness = max(1, round(thick * self.side))
        cv2.line(self.mask, first, last, 255, thickness)
        cv2.line(self.shade, first, last, shade, thickness)


def _cup(canvas: _Canvas) -> None:
    canvas.ellipse((0.74, 0.52), (0.17, 0.19), shade=0.85, thick=0.09)
    canvas.polygon([(0.08, 0.16), (0.72, 0.16), (0.62, 0.92), (0.18, 0.92)])
    canvas.ellipse((0.40, 0.91), (0.22, 0.06))
    canvas.ellipse((0.40, 0.17), (0.32, 0.09), shade=1.25)
    canvas.ellipse((0.40, 0.18), (0.26, 0.06), shade=0.45)


def _ball(canvas: _Canvas) -> None:
    canvas.ellipse((0.5, 0.5), (0.46, 0.46))
    y, x = np.mgrid[0 : canvas.side, 0 : canvas.side].astype(np.float32) / canvas.side
    away = ((x - 0.38) ** 2 + (y - 0.38) ** 2) / 0.36
    canvas.shade *= np.clip(1.3 - 0.9 * away, 0.35, 1.3)


def _box(canvas: _Canvas) -> None:
    canvas.polygon([(0.06, 0.32), (0.70, 0.32), (0.70, 0.94), (0.06, 0.94)])
    canvas.polygon([(0.06, 0.32), (0.26, 0.08), (0.94, 0.08), (0.70, 0.32)], shade=1.3)
    canvas.polygon([(0.70, 0.32), (0.94, 0.08), (0.94, 0.68), (0.70, 0.94)], shade=0.6)


def _hand(canvas: _Canvas) -> None:
    for tip, base in (((0.30, 0.20), (0.36, 0.60)), ((0.46, 0.08), (0.47, 0.60)), ((0.62, 0.12), (0.58, 0.60)),
                      ((0.77, 0.26), (0.68, 0.60))):  # fmt: skip
        canvas.line(tip, base, 0.10, shade=1.1)
    canvas.line((0.12, 0.50), (0.40, 0.78), 0.12, shade=1.1)
    canvas.ellipse((0.52, 0.70), (0.23, 0.23))
    canvas.line((0.40, 0.72), (0.62, 0.66), 0.03, shade=0.65)


_DRAW: dict[str, Callable[[_Canvas], None]] = {"cup": _cup, "ball": _ball, "box": _box, "hand": _hand}


def draw_sprite(look: Look, light_deg: float) -> Sprite:
    """Draw one object. `light_deg` is the direction of the light in the image, degrees.

    The sprite's side is about 1.35 times `look.size`, in pixels of the video.
    """
    side = int(np.ceil(look.size * _MARGIN)) + 2
    canvas = _Canvas(max(8, round(look.size * _FINE)))
    _DRAW[look.kind](canvas)
    picture = _paint(canvas, look)
    cover = canvas.mask.astype(np.float32) / 255
    # A dark outline, because some looks are close to the background's colour in places.
    inside = cv2.erode(cover, np.ones((3, 3), np.uint8), iterations=max(1, canvas.side // 40))
    picture *= (0.55 + 0.45 * inside)[..., None]
    if look.mirrored:
        picture, cover = picture[:, ::-1], cover[:, ::-1]
    layers = np.concatenate([picture * cover[..., None], cover[..., None]], axis=2)
    turn = cv2.getRotationMatrix2D((canvas.side / 2, canvas.side / 2), look.angle_deg, 1.0)
    turn[0] *= look.aspect
    fine = side * _FINE
    turn[0, 2] += (fine - canvas.side * look.aspect) / 2
    turn[1, 2] += (fine - canvas.side) / 2
    layers = cv2.warpAffine(np.ascontiguousarray(layers), turn, (fine, fine), flags=cv2.INTER_LINEAR)
    layers = cv2.resize(layers, (side, side), interpolation=cv2.INTER_AREA)
    layers[..., :3] *= _lighting(side, light_deg, 0.5)[..., None]
    cover = layers[..., 3]
    rows, columns = np.nonzero((cover > 0.25).any(1))[0], np.nonzero((cover > 0.25).any(0))[0]
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return Sprite(np.ascontiguousarray(layers[..., :3]), np.ascontiguousarray(cover), box)


def _paint(canvas: _Canvas, look: Look) -> NDArray[np.float32]:
    y, x = np.mgrid[0 : canvas.side, 0 : canvas.side].astype(np.float32) / canvas.side
    turns = 2 * np.pi * look.pattern_scale
    if look.pattern == "stripes":
        mix = (np.sin(turns * (x + y)) > 0).astype(np.float32)
    elif look.pattern == "dots":
        mix = (np.sin(turns * x) * np.sin(turns * y) > 0.35).astype(np.float32)
    elif look.pattern == "speckle":
        grain = np.random.default_rng(look.speckle_seed).random((8, 8), np.float32)
        mix = cv2.resize(grain, (canvas.side, canvas.side), interpolation=cv2.INTER_LINEAR)
    else:
        mix = np.zeros_like(x)
    first, second = np.array(look.colour, np.float32), np.array(look.second_colour, np.float32)
    picture = first + mix[..., None] * (second - first)
    return np.clip(picture * canvas.shade[..., None], 0, 255)


def _lighting(side: int, light_deg: float, strength: float) -> NDArray[np.float32]:
    y, x = (np.mgrid[0:side, 0:side].astype(np.float32) + 0.5) / side - 0.5
    angle = np.deg2rad(light_deg)
    return (1 + strength * (x * np.cos(angle) + y * np.sin(angle))).astype(np.float32)

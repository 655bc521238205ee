"""Camera shift between frames, and cuts between shots.

Both are measured on a small grey picture. Sign: the shift is that of the CAMERA. When the camera pans to the right, x
rises, and the background moves to the left in the picture. A point's movement in the scene is its movement in the
picture PLUS the camera's shift.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np

SMALL_SIDE = 160  # longer side of the small picture, pixels
_POINTS = 150
_TOLERANCE = 0.7  # small pixels: flows that differ by less agree
_MIN_AGREEING = 8
_MIN_SHARE = 0.4
_MIN_SPREAD = 0.08  # standard deviation of the agreeing points' positions, share of the frame; 0.29: uniform over it
_WINDOW = 15  # small pixels
_CUT_COLOUR = 0.35  # share of the picture's colours that changes at a cut
_CUT_LIKENESS = 0.6  # correlation of the small pictures below which there is a cut


@dataclass(frozen=True)
class Glance:
    """The data kept of a frame: a small picture in colour and in grey, and the scale to source pixels."""

    small: np.ndarray  # uint8 [h, w, 3] RGB
    grey: np.ndarray  # uint8 [h, w]
    scale: float  # source pixels per small pixel

    @functools.cached_property
    def colours(self) -> np.ndarray:
        """The histogram of the colours: float32 [512], sums to 1. Only pictures that differ much need it."""
        bins = (self.small >> 5).astype(np.int32)
        counts = np.bincount((bins[..., 0] * 64 + bins[..., 1] * 8 + bins[..., 2]).ravel(), minlength=512)
        return (counts / counts.sum()).astype(np.float32)

    @functools.cached_property
    def contrast(self) -> tuple[np.ndarray, np.float64]:
        """The grey picture without its mean, float64 [h * w], and its squared norm."""
        flat = self.grey.astype(np.float32).ravel() - self.grey.mean()
        return flat, _product(flat, flat)


@dataclass(frozen=True)
class Step:
    """The change from one glance to the next: points that could be followed, their flow, and whether there is a cut."""

    points: np.ndarray  # float32 [n, 2], (x, y) in the earlier frame, source pixels
    flow: np.ndarray  # float32 [n, 2], source pixels
    tolerance: float  # source pixels
    window: float  # source pixels around a point on which its flow was measured
    cut: bool


def glance(frame: np.ndarray) -> Glance:
    """Reduce a frame uint8 [H, W, 3] RGB to what camera shift and cuts are measured on."""
    height, width = frame.shape[:2]
    scale = max(max(height, width) / SMALL_SIDE, 1.0)
    size = (max(round(width / scale), 1), max(round(height / scale), 1))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if scale > 1 else frame
    return Glance(small, cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), scale)


def step(before: Glance, after: Glance, *, follow: bool = True) -> Step:
    """Compare two consecutive frames of one video.

    Args:
        follow: if False, only detect cuts and follow no points.
    """
    cut = _is_cut(before, after)
    none = np.empty((0, 2), np.float32)
    if cut or not follow:
        return Step(none, none, 0.0, 0.0, cut)
    corners = cv2.goodFeaturesToTrack(before.grey, _POINTS, 0.01, 5)
    if corners is None:
        return Step(none, none, 0.0, 0.0, cut)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        before.grey, after.grey, corners, None, winSize=(_WINDOW, _WINDOW), maxLevel=3
    )
    good = found.ravel() == 1
    points = corners.reshape(-1, 2)[good]
    flow = moved.reshape(-1, 2)[good] - points
    return Step(points * before.scale, flow * before.scale, _TOLERANCE * before.scale, _WINDOW / 2 * before.scale, cut)


def camera_shift(step: Step, boxes: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
    """Estimate the camera's shift over a step: float32 [2], (x, y), source pixels.

    It is the negated flow that most background points agree on. The background is everything outside the boxes of
    detected objects, with a margin, since flow is measured on a window. If too few points agree, or the agreeing points
    lie in one corner, the shift is unknown and 0 is returned: an invented pan would add motion to every object.

    Args:
        boxes: float [n, 4] xyxy, the objects in the earlier frame, source pixels.
        frame_size: (height, width), source pixels.
    """
    points, flow = step.points, step.flow
    if len(boxes) and len(points):
        x, y = points[:, :1], points[:, 1:]
        left, top, right, bottom = (boxes + step.window * np.array([-1, -1, 1, 1])).T
        outside = ~((x >= left) & (x <= right) & (y >= top) & (y <= bottom)).any(1)
        points, flow = points[outside], flow[outside]
    if len(flow) < _MIN_AGREEING:
        return np.zeros(2, np.float32)
    # Consensus on a translation: each point's flow is a candidate, and the one that most others agree with wins.
    # One coordinate at a time: a maximum over an axis of two numbers takes ten times as long.
    x, y = np.ascontiguousarray(flow.T)
    agree = np.abs(x[:, None] - x) <= step.tolerance
    agree &= np.abs(y[:, None] - y) <= step.tolerance
    best = agree[np.count_nonzero(agree, axis=1).argmax()]
    spread_x, spread_y = points[best].std(0) / (frame_size[1], frame_size[0])
    if (
        best.sum() < max(_MIN_AGREEING, _MIN_SHARE * len(flow))
        or min(spread_x, spread_y) < _MIN_SPREAD
        or spread_x + spread_y < 3 * _MIN_SPREAD
    ):
        return np.zeros(2, np.float32)
    return (-flow[best].mean(0)).astype(np.float32)


def sharpness(grey_crop: np.ndarray) -> float:
    """Return the variance of the Laplacian of a grey crop (uint8 [h, w]), shrunk to 128 pixels to compare sizes."""
    side = max(grey_crop.shape)
    if min(grey_crop.shape) < 3:
        return 0.0
    if side > 128:
        ratio = 128 / side
        size = (max(round(grey_crop.shape[1] * ratio), 3), max(round(grey_crop.shape[0] * ratio), 3))
        grey_crop = cv2.resize(grey_crop, size, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(grey_crop, cv2.CV_32F).var())


def _is_cut(before: Glance, after: Glance) -> bool:
    """Detect a cut: it changes the colours AND the picture. A flash changes only the one, a fast pan only the other."""
    if before.grey.shape != after.grey.shape:
        return False
    (a, a_norm), (b, b_norm) = before.contrast, after.contrast
    likeness = float(_product(a, b)) / max(float(np.sqrt(a_norm * b_norm)), 1e-6)
    # The histograms cost more, and consecutive frames are nearly always alike.
    return likeness < _CUT_LIKENESS and bool(np.abs(before.colours - after.colours).sum() / 2 >= _CUT_COLOUR)


def _product(a: np.ndarray, b: np.ndarray) -> np.float64:
    """Return the scalar product of two vectors. The `@` of long ones waits for BLAS's threads, once per frame."""
    return np.float64(np.einsum("i,i->", a, b))

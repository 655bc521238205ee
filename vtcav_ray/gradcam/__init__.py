"""Grad-CAM on videos: the baseline for Video-TCAV, with figures that measure its weaknesses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtcav_ray.lazy import lazy_names
from vtcav_ray.report.companions import COMPANIONS, Companion

if TYPE_CHECKING:
    from vtcav_ray.gradcam.maps import GradCam, Mode, assemble, plays_of
    from vtcav_ray.gradcam.measures import drift, flicker, jump, similarity
    from vtcav_ray.runs.run import Run

__all__ = [
    "PAGE",
    "GradCam",
    "Mode",
    "assemble",
    "drift",
    "flicker",
    "jump",
    "plays_of",
    "similarity",
]

__getattr__ = lazy_names(
    __name__,
    {
        "maps": ["GradCam", "Mode", "assemble", "plays_of"],
        "measures": ["drift", "flicker", "jump", "similarity"],
    },
)

PAGE = "gradcam.html"  # in the run folder


def _rewrite(run: Run) -> None:
    from vtcav_ray.gradcam.page import write_page  # imported late: workers import this package too

    write_page(run)


COMPANIONS["gradcam"] = Companion(PAGE, "Grad-CAM", _rewrite)

"""Grad-CAM on videos: the baseline that Video-TCAV is compared with, and what is wrong with it, in figures."""

from vtcav_ray.gradcam.maps import GradCam, Mode, assemble, plays_of
from vtcav_ray.gradcam.measures import drift, flicker, jump, similarity

__all__ = [
    "GradCam",
    "Mode",
    "assemble",
    "drift",
    "flicker",
    "jump",
    "plays_of",
    "similarity",
]

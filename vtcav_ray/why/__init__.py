"""Explain single videos, and find the concepts behind a model's mistakes. Start with `explain_videos`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtcav_ray.lazy import lazy_names

if TYPE_CHECKING:
    from vtcav_ray.why.mistakes import Margins, MistakeTests, direction_p, mistake_tests, pushes_to_rival
    from vtcav_ray.why.pushes import ConceptClips, Push, presence
    from vtcav_ray.why.run import ConceptPush, Explained, Explanation, explain_videos

__all__ = [
    "ConceptClips",
    "ConceptPush",
    "Explained",
    "Explanation",
    "Margins",
    "MistakeTests",
    "Push",
    "direction_p",
    "explain_videos",
    "mistake_tests",
    "presence",
    "pushes_to_rival",
]

__getattr__ = lazy_names(
    __name__,
    {
        "mistakes": ["Margins", "MistakeTests", "direction_p", "mistake_tests", "pushes_to_rival"],
        "pushes": ["ConceptClips", "Push", "presence"],
        "run": ["ConceptPush", "Explained", "Explanation", "explain_videos"],
    },
)

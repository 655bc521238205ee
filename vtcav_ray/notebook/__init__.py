"""The package as a notebook uses it: `explain` on arrays, and runs that show themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtcav_ray.lazy import lazy_names

if TYPE_CHECKING:
    from vtcav_ray.notebook.explaining import Settings, explain
    from vtcav_ray.notebook.explanation import Explanation
    from vtcav_ray.notebook.opened_run import Run, run

__all__ = ["Explanation", "Run", "Settings", "explain", "run"]

__getattr__ = lazy_names(
    __name__,
    {
        "explaining": ["Settings", "explain"],
        "explanation": ["Explanation"],
        "opened_run": ["Run", "run"],
    },
)

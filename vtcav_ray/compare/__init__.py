"""Two runs or more, held against one another: which effects moved by more than their own uncertainty."""

from vtcav_ray.compare.runs import COMPARISON, compare_runs

__all__ = ["COMPARISON", "compare_runs"]

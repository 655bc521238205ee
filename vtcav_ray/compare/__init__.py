"""Compare two or more runs: which effects changed by more than their uncertainty."""

from vtcav_ray.compare.runs import COMPARISON, compare_runs

__all__ = ["COMPARISON", "compare_runs"]

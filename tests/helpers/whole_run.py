"""A whole run that takes a minute, for the tests of object storage and benchmarks/soak.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

VIDEOS, SEED = 40, 3  # of the planted world

# All settings except `videos`, `resources` and the paths of the weights.
SMALL: dict[str, Any] = {
    "clips": {
        "frames": 16,
        "interval": 1,
        "size": 64,
        "per_class": 4,
        "min_per_class": 2,
        "per_concept": 4,
        "min_per_concept": 2,
        "random_pool": 12,
        "concepts": [{"name": "up", "motion": {"direction": "up"}, "kinds": ["context"]}],
    },
    "activations": {"layers": ["late"]},
    "cavs": {"random_sets": 3},
    "scores": {"permutations": 100, "bootstrap": 100},
    "max_failed_fraction": 0.0,
}


def vtcav(*arguments: str | Path) -> list[str]:
    """Return a `vtcav` command line for this interpreter."""
    return [sys.executable, "-c", "from vtcav_ray.cli import main; main()", *map(str, arguments)]


def add_node(cluster: Any, **resources: int) -> Any:
    """Add a node to a `ray.cluster_utils.Cluster`. Ray allows 30 s for its start, which a busy machine may exceed."""
    for attempt in range(4):
        try:
            return cluster.add_node(**resources)
        except Exception as error:  # Ray raises a plain Exception
            if "timed out during startup" not in str(error) or attempt == 3:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")

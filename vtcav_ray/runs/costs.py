"""The cost of a run: CPU and GPU hours held by each stage's actors, and their price at a given rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vtcav_ray.stages import facts_of

# Cost of a backward pass in forward passes. Parameters have no gradients, and the graph starts at the earliest layer:
# 0.2 to 0.8 by counted operations (docs/models.md), and some overhead.
BACKWARD = 1


@dataclass(frozen=True)
class Hours:
    """Hours for which devices were held, busy or not. A cluster charges for these."""

    cpu: float = 0.0
    gpu: float = 0.0

    def __add__(self, other: Hours) -> Hours:
        return Hours(self.cpu + other.cpu, self.gpu + other.gpu)

    def times(self, factor: float) -> Hours:
        return Hours(self.cpu * factor, self.gpu * factor)


def stage_hours(stage: str, worker_seconds: float, resources: Mapping[str, Any]) -> Hours:
    """Return the hours for which a stage's actors held devices.

    Args:
        stage: its name.
        worker_seconds: summed over shards (the metric `seconds`); for a stage of the driver, its wall time.
        resources: the config's section `resources`, as a mapping; missing keys have their defaults (1 CPU, no GPU).
    """
    held = resources.get(facts_of(stage).resources or "", {})
    hours = worker_seconds / 3600
    return Hours(hours * float(held.get("cpus", 1.0)), hours * float(held.get("gpus", 0.0)))


def price(hours: Hours, rates: Mapping[str, Any]) -> float | None:
    """Return the price in the rates' currency; None: a necessary rate is missing.

    Args:
        hours: the hours held.
        rates: `gpu_hour` and `cpu_hour`. If GPUs are held and only `gpu_hour` is given, it includes the CPUs.
    """
    gpu_hour, cpu_hour = rates.get("gpu_hour"), rates.get("cpu_hour")
    if gpu_hour is None and cpu_hour is None:
        return None
    if (hours.gpu and gpu_hour is None) or (not hours.gpu and cpu_hour is None):
        return None
    return hours.gpu * float(gpu_hour or 0.0) + hours.cpu * float(cpu_hour or 0.0)


@dataclass(frozen=True)
class CheckSizes:
    """Sizes of the checks of `vtcav faithful`.

    Attributes:
        clips: maximum reference clips per class.
        random_sets: directions of chance per layer and kind: p is at least 1 / (1 + random_sets).
        concepts: maximum number of concepts.
        in_curves: concepts that a curve erases one after the other.
        chains: sequences of directions of chance that a curve is compared with.
    """

    clips: int = 8
    random_sets: int = 60
    concepts: int = 12
    in_curves: int = 4
    chains: int = 20

    def passes(self, *, classes: int, concepts: int, kinds: int, layers: int) -> int:
        """Return the maximum number of forward passes of the rest of the network that erase or shift something."""
        used = min(concepts, self.concepts)
        each = 3 * used + kinds * self.random_sets + self.in_curves * (3 + self.chains)
        return self.clips * classes * layers * each

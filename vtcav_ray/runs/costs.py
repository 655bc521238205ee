"""What a run took: hours of CPU and GPU held by each stage's actors, and what those cost at a given rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vtcav_ray.stages import facts_of


@dataclass(frozen=True)
class Hours:
    """Hours of devices held, busy or not: what a cluster charges for."""

    cpu: float = 0.0
    gpu: float = 0.0

    def __add__(self, other: Hours) -> Hours:
        return Hours(self.cpu + other.cpu, self.gpu + other.gpu)

    def times(self, factor: float) -> Hours:
        return Hours(self.cpu * factor, self.gpu * factor)


def stage_hours(stage: str, worker_seconds: float, resources: Mapping[str, Any]) -> Hours:
    """Hours that a stage's actors held.

    Args:
        stage: its name.
        worker_seconds: summed over shards (the metric `seconds`); for a stage of the driver its wall time.
        resources: the config's section `resources`, as a mapping; what is missing has its default (1 CPU, no GPU).
    """
    held = resources.get(facts_of(stage).resources or "", {})
    hours = worker_seconds / 3600
    return Hours(hours * float(held.get("cpus", 1.0)), hours * float(held.get("gpus", 0.0)))


def price(hours: Hours, rates: Mapping[str, Any]) -> float | None:
    """In the rates' currency; None: a rate that is needed is not given.

    Args:
        hours: held.
        rates: `gpu_hour` and `cpu_hour`; where GPUs are held and only `gpu_hour` is given, the CPUs come with them.
    """
    gpu_hour, cpu_hour = rates.get("gpu_hour"), rates.get("cpu_hour")
    if gpu_hour is None and cpu_hour is None:
        return None
    if (hours.gpu and gpu_hour is None) or (not hours.gpu and cpu_hour is None):
        return None
    return hours.gpu * float(gpu_hour or 0.0) + hours.cpu * float(cpu_hour or 0.0)

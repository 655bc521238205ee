"""Which device computes: the GPU that a stage's resources ask for, or the processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtcav_ray.config import StageResources
from vtcav_ray.errors import ConfigError

if TYPE_CHECKING:
    import torch


def pick_device(device: str | torch.device) -> torch.device:
    """`auto` is the GPU where there is one; a GPU that is not there is a ConfigError."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"Device {device} was asked for, and torch sees no GPU here: set gpus to 0 in `resources`.")
    return chosen


def device_of_actor(resources: StageResources) -> str:
    """`auto` for an actor that has (a share of) a GPU, else `cpu`, although torch may see a GPU there.

    Ray leaves an actor without GPUs the sight of them all. Were `auto` the answer for each, as many models would lie on
    one GPU as the machine has cores. (`auto`, and not `cuda`: a plan is also made on a machine without a GPU.)
    """
    return "auto" if resources.gpus else "cpu"


def device_for(resources: StageResources) -> torch.device:
    """`cuda` for an actor that has (a share of) a GPU, else `cpu`; ConfigError where torch sees none."""
    return pick_device("cuda" if resources.gpus else "cpu")

"""The device that computes: the GPU that a stage's resources request, or the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtcav_ray.config import StageResources
from vtcav_ray.errors import ConfigError

if TYPE_CHECKING:
    import torch


def pick_device(device: str | torch.device) -> torch.device:
    """Return the torch device of this name. `auto` is the GPU if there is one; a missing GPU is a ConfigError."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"The config requests {device}, but torch sees no GPU here. Set gpus to 0 in `resources`.")
    return chosen


def device_of_actor(resources: StageResources) -> str:
    """Return `auto` for an actor that has (a share of) a GPU, else `cpu`, even if torch sees a GPU there.

    Ray does not hide the GPUs from an actor without GPUs. If this returned `auto` for every actor, one GPU would hold
    as many models as the machine has cores. (`auto`, not `cuda`: a plan can also be made on a machine without a GPU.)
    """
    return "auto" if resources.gpus else "cpu"


def device_for(resources: StageResources) -> torch.device:
    """Return `cuda` for an actor that has (a share of) a GPU, else `cpu`; ConfigError if torch sees no GPU."""
    return pick_device("cuda" if resources.gpus else "cpu")

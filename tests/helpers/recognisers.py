"""A small untrained recogniser."""

from __future__ import annotations

import torch

from vtcav_ray.config import ModelConfig
from vtcav_ray.models import Recogniser, load_recogniser


def untrained_swin() -> Recogniser:
    """Build the planted world's architecture (a small Video Swin for 16 x 64 x 64), with random weights."""
    recogniser = load_recogniser(ModelConfig(checkpoint="untrained"), "cpu")
    torch.manual_seed(0)
    for name, weight in recogniser.module.named_parameters():
        if name.endswith("relative_position_bias_table"):
            weight.data.normal_(std=0.5)  # as after training: with the initial zeros, no test would notice a wrong bias
    return recogniser

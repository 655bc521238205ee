"""A small untrained recogniser and clips for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vtcav_ray.config import ModelConfig
from vtcav_ray.models import Recogniser, load_recogniser


@pytest.fixture(scope="session")
def swin() -> Recogniser:
    """The planted world's architecture (a small Video Swin for 16 x 64 x 64), with random weights."""
    recogniser = load_recogniser(ModelConfig(checkpoint="untrained"), "cpu")
    torch.manual_seed(0)
    for name, weight in recogniser.module.named_parameters():
        if name.endswith("relative_position_bias_table"):
            weight.data.normal_(std=0.5)  # as after training: with the initial zeros, no test would notice a wrong bias
    return recogniser


@pytest.fixture(scope="session")
def clips() -> list[np.ndarray]:
    """Five clips of 16 frames; the last ones are wider and taller than the model's input."""
    stream = np.random.RandomState(1)
    sizes = [(64, 64), (64, 64), (64, 64), (64, 90), (100, 70)]
    return [stream.randint(0, 256, (16, h, w, 3), np.uint8) for h, w in sizes]

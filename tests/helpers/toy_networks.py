"""Recognisers around networks of a few weights, whose answers a test can compute itself."""

from __future__ import annotations

import torch
from torch import nn

from vtcav_ray.models import Description, Recogniser
from vtcav_ray.models.preprocess import Crop, Preprocessor

SIDE = 6  # of a toy's input, pixels


class ToyRecogniser(Recogniser):
    """A network `[B, 3, T, SIDE, SIDE] -> [B, K]`. Frames are only cropped, and their values divided by 255."""

    @classmethod
    def of(cls, module: nn.Module, num_classes: int = 4) -> ToyRecogniser:
        """Wrap a network. Its config's own crops are three, for clips of SIDE x more than SIDE pixels."""
        preprocessor = Preprocessor((), Crop("three", SIDE, SIDE), (0.0,) * 3, (255.0,) * 3, False, None)
        names = tuple(f"class {k}" for k in range(num_classes))
        description = Description("0" * 64, False, "toy@0", None, None)
        return cls(module, names, description, preprocessor, {}, torch.device("cpu"))

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x)

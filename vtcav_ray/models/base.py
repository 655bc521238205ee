"""The interface of a recogniser, the same for every framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import nn

from vtcav_ray.config import ModelConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.models.preprocess import Preprocessor, Sampling

Views = Literal["center", "test"]


@dataclass(frozen=True)
class Description:
    """Facts about a recogniser that need no model.

    Attributes:
        digest: hex SHA-256 of the config's content and the checkpoint's bytes; part of the stage's key.
        untrained: the weights are random numbers, requested by name.
        tag: for people and tables, `<checkpoint's name>@<12 digits of digest>` or `UNTRAINED@...`.
        class_names: in the order of the logits; None: only the checkpoint has them.
        sampling: how the config samples frames; None: it does not say.
    """

    digest: str
    untrained: bool
    tag: str
    class_names: tuple[str, ...] | None
    sampling: Sampling | None


@dataclass(frozen=True)
class TokenGrid:
    """The layout of a sequence of tokens `[B, extra + T'·H'·W', C]` on the video.

    Attributes:
        order: `thw` (time varies slowest) or `hwt` (time varies fastest).
        patch: side of a token, in pixels.
        tubelet: frames per token.
    """

    order: Literal["thw", "hwt"]
    patch: int
    tubelet: int = 1


@dataclass
class Recogniser(ABC):
    """A video action recogniser in eval mode, on one device, whose parameters need no gradients.

    Attributes:
        module: the network; layers are named by their path in it.
        class_names: in the order of the logits; unique.
        description: see `Description`.
        preprocessor: converts frames to the model's input.
        layer_aliases: `early`, `middle`, `late` and `head` -> a layer's name (see `vtcav_ray.models.layers`).
        device: of the module.
        tokens: how the token sequences inside the model lie on the video; None: there are none, or it is unknown.
        layouts: a layer's name -> `channels_first` or `channels_last`, if the shapes are ambiguous.
        frames: the only number of frames that the model takes; None: any.
    """

    module: nn.Module
    class_names: tuple[str, ...]
    description: Description
    preprocessor: Preprocessor
    layer_aliases: Mapping[str, str]
    device: torch.device
    tokens: TokenGrid | None = None
    layouts: Mapping[str, str] = field(default_factory=dict)
    frames: int | None = None
    forms: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)  # the cache of `find_forms`

    def __post_init__(self) -> None:
        self.module.eval().requires_grad_(False).to(self.device)

    @property
    def digest(self) -> str:
        return self.description.digest

    @property
    def untrained(self) -> bool:
        return self.description.untrained

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the model's input, pixels."""
        return self.preprocessor.input_size

    def preprocess(self, frames: Sequence[np.ndarray], views: Views = "center") -> torch.Tensor:
        """Convert clips to the model's input, on the model's device.

        Args:
            frames: B clips `uint8 [T, H, W, 3]`, RGB, of one T and any height and width.
            views: `center`: one centre crop; `test`: the crops of the config's own test pipeline.

        Returns:
            `[B, V, C, T, H, W]` in the type of the model's weights, normalised with the config's mean and deviation.

        Raises:
            ConfigError: the model does not take clips of this length.
        """
        pixels = np.stack([self.pixels(clip, views) for clip in frames])
        return self.to_input(torch.from_numpy(pixels).to(self.device))

    def pixels(self, clip: np.ndarray, views: Views) -> np.ndarray:
        """Run the CPU's part of `preprocess` on one clip: `[T, H, W, 3]` -> `uint8 [V, T, h, w, 3]`. Thread-safe.

        Raises:
            ConfigError: the model does not take clips of this length.
        """
        self.check_frames(len(clip))
        return self.preprocessor.pixels(clip, views)

    def check_frames(self, count: int) -> None:
        """Check the number of frames of a clip.

        Raises:
            ConfigError: the model does not take clips of this length.
        """
        if self.frames is not None and count != self.frames:
            raise ConfigError(
                f"This model takes clips of exactly {self.frames} frames, not {count}: "
                f"set clips.frames to {self.frames}."
            )

    def to_input(self, pixels: torch.Tensor) -> torch.Tensor:
        """Run the device's part of `preprocess`: `uint8 [B, V, T, h, w, 3]`, on the device -> `[B, V, C, T, h, w]`."""
        weight = next(self.module.parameters())
        return self.preprocessor.normalised(pixels).to(weight.dtype)

    @abstractmethod
    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return raw class scores, before any softmax: `[B', C, T, H, W]` -> `[B', K]`."""


MakeRecogniser = Callable[[ModelConfig, torch.device, int], Recogniser]


Maker = TypeVar("Maker", bound=Callable[..., Recogniser])


def described_by(
    describe: Callable[[ModelConfig, int], Description],
    *,
    layers: Callable[[ModelConfig], tuple[str, ...]] | None = None,
    weights: Callable[[ModelConfig], str] | None = None,
) -> Callable[[Maker], Maker]:
    """Decorate a framework with functions that describe its recognisers without building them.

    Args:
        describe: of (config, seed).
        layers: the layers of a run whose config names none (`activations.layers: auto`); None: `early`, `middle`,
            `late` and `head`.
        weights: returns the hex SHA-256 of `model.checkpoint`; None: that of one file.
    """

    def add(make: Maker) -> Maker:
        setattr(make, "describe", describe)  # noqa: B010 - mypy knows no attributes of functions
        setattr(make, "layers", layers)  # noqa: B010
        setattr(make, "weights", weights)  # noqa: B010
        return make

    return add

"""A plain `torch.nn.Module` behind the interface of our recognisers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from vtcav_ray.errors import ConfigError
from vtcav_ray.models.base import Description, Recogniser, TokenGrid
from vtcav_ray.models.preprocess import make_preprocessor
from vtcav_ray.text.name_lists import repeated


@dataclass(frozen=True)
class About:
    """What a plain `nn.Module` does not say about itself.

    Attributes:
        class_names: in the order of the logits; unique.
        input_size: pixels. A number: clips are resized to this short side, and the centre is cropped to a square.
            (height, width): clips are resized to exactly this.
        mean, std: of RGB values in [0, 1], as torchvision's and timm's configs have them.
        axes: of the module's input: `BCTHW` (PyTorch's order for 3D convolutions) or `BTCHW` (transformers).
        frames: the only number of frames that the model takes; None: any.
        layer_aliases: name -> path of a submodule, such as `{"late": "blocks.11"}`.
        tokens: how the token sequences of a transformer lie on the video; None: it has none.
    """

    class_names: Sequence[str]
    input_size: int | tuple[int, int]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    axes: Literal["BCTHW", "BTCHW"] = "BCTHW"
    frames: int | None = None
    layer_aliases: Mapping[str, str] = field(default_factory=dict)
    tokens: TokenGrid | None = None


@dataclass
class ModuleRecogniser(Recogniser):
    """A recogniser around an `nn.Module`, whose output is the logits or has them as `logits`."""

    axes: str = "BCTHW"

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        out = self.module(x.transpose(1, 2) if self.axes == "BTCHW" else x)
        found = getattr(out, "logits", out)
        expected = (len(x), len(self.class_names))
        if not isinstance(found, torch.Tensor) or found.shape != expected:
            shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise ConfigError(
                f"about.class_names: {len(self.class_names)} names, so the model should return logits of the shape "
                f"{expected}, and it returns {shape}."
            )
        return found


def recogniser_of(module: Any, about: About | None) -> ModuleRecogniser:
    """Wrap a module, on the device of its weights.

    Raises:
        TypeError: it is no `nn.Module`, or `about` is missing.
        ValueError: `about` names a class twice, or a layer that the module does not have.
        ConfigError: a size, a mean or a deviation that is not possible.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"model: give a torch.nn.Module or a recogniser, not {type(module).__name__}.")
    if about is None:
        raise TypeError(
            "about: a plain nn.Module needs vtcav_ray.About(class_names=[...], input_size=224, mean=..., std=...)."
        )
    if twice := repeated(tuple(about.class_names)):
        raise ValueError(f"about.class_names: {twice[0]!r} is there twice.")
    paths = dict(module.named_modules())
    for alias, path in about.layer_aliases.items():
        if path.removesuffix(":in") not in paths:
            raise ValueError(f"about.layer_aliases: {alias!r} is {path!r}, and the model has no such submodule.")
    size = about.input_size
    if isinstance(size, int):
        steps: list[dict[str, Any]] = [
            {"type": "Resize", "scale": (-1, size)},
            {"type": "CenterCrop", "crop_size": size},
        ]
    else:
        steps = [{"type": "Resize", "scale": (size[1], size[0]), "keep_ratio": False}]
    in_pixels = {"mean": [255 * value for value in about.mean], "std": [255 * value for value in about.std]}
    weight = next(module.parameters(), None)
    if weight is None:
        raise TypeError("model: the module has no parameters.")
    digest = _digest(module)
    names = tuple(about.class_names)
    return ModuleRecogniser(
        module=module,
        class_names=names,
        description=Description(digest, False, f"{type(module).__name__}@{digest[:12]}", names, None),
        preprocessor=make_preprocessor(steps, in_pixels),
        layer_aliases=dict(about.layer_aliases),
        device=weight.device,
        tokens=about.tokens,
        frames=about.frames,
        axes=about.axes,
    )


@contextmanager
def left_unchanged(module: nn.Module) -> Iterator[None]:
    """Restore the modes of all submodules and the `requires_grad` of all parameters at the end."""
    modes = [(part, part.training) for part in module.modules()]
    needs = [(weight, weight.requires_grad) for weight in module.parameters()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        for weight, needed in needs:
            weight.requires_grad_(needed)


def _digest(module: nn.Module) -> str:
    """Return the hex SHA-256 of the class's name and all weights."""
    found = hashlib.sha256(type(module).__qualname__.encode())
    for name, value in module.state_dict().items():
        if isinstance(value, torch.Tensor):
            found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()

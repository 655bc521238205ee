"""A plain `torch.nn.Module` behind the interface of our recognisers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from vtcav_ray.errors import ConfigError
from vtcav_ray.models.base import Description
from vtcav_ray.models.digest import DIGITS_SHOWN
from vtcav_ray.models.python_module import NetworkSpec, PythonRecogniser, preprocessor_of
from vtcav_ray.text.name_lists import repeated


class ModuleRecogniser(PythonRecogniser):
    """A recogniser around an `nn.Module`, whose output is the logits or has them as `logits`."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        out = self.module(x)
        found = getattr(out, "logits", out)
        expected = (len(x), len(self.class_names))
        if not isinstance(found, torch.Tensor) or found.shape != expected:
            shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise ConfigError(
                f"spec.class_names: {len(self.class_names)} names, so the model should return logits of the shape "
                f"{expected}, and it returns {shape}."
            )
        return found


def recogniser_of(module: Any, spec: NetworkSpec | None) -> ModuleRecogniser:
    """Wrap a module, on the device of its weights.

    Raises:
        TypeError: it is no `nn.Module`, it has no parameters, or `spec` is missing.
        ValueError: `spec` names a class twice, or a layer that the module does not have.
        ConfigError: a size, a mean or a deviation that is not possible.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"model: give a torch.nn.Module or a recogniser, not {type(module).__name__}.")
    if spec is None:
        raise TypeError(
            "spec: a plain nn.Module needs vtcav_ray.NetworkSpec(class_names=[...], input_size=224, mean=..., std=...)."
        )
    names = tuple(spec.class_names)
    if twice := repeated(names):
        raise ValueError(f"spec.class_names: {twice[0]!r} is there twice.")
    paths = dict(module.named_modules())
    for alias, path in spec.layer_aliases.items():
        if path.removesuffix(":in") not in paths:
            raise ValueError(f"spec.layer_aliases: {alias!r} is {path!r}, and the model has no such submodule.")
    weight = next(module.parameters(), None)
    if weight is None:
        raise TypeError("model: the module has no parameters.")
    digest = _digest(module)
    return ModuleRecogniser(
        module=module,
        class_names=names,
        description=Description(digest, False, f"{type(module).__name__}@{digest[:DIGITS_SHOWN]}", names, None),
        preprocessor=preprocessor_of(spec, "spec"),
        layer_aliases=dict(spec.layer_aliases),
        device=weight.device,
        tokens=spec.tokens,
        layouts=spec.layouts,
        frames=spec.frames,
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

"""Shuffle a model's weights, whole or only those that run after a layer.

An explanation that survives this does not describe what the model learnt (Adebayo et al., Sanity checks for saliency
maps, NeurIPS 2018). The numbers inside each tensor are permuted: sizes and distributions stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from vtcav_ray.models.base import Recogniser
from vtcav_ray.models.layers import watched


def shuffle_weights(modules: Sequence[nn.Module], seed: int) -> None:
    """Permute the numbers inside each parameter of these modules in place, but not of the modules inside them."""
    stream = torch.Generator().manual_seed(seed)
    done: set[int] = set()  # modules can share a parameter
    with torch.no_grad():
        for module in modules:
            for weight in module.parameters(recurse=False):
                if id(weight) in done:
                    continue
                done.add(id(weight))
                order = torch.randperm(weight.numel(), generator=stream).to(weight.device)
                weight.copy_(weight.flatten()[order].view(weight.shape))


def modules_after(recogniser: Recogniser, path: str, x: torch.Tensor) -> list[nn.Module]:
    """Return the modules with parameters that run only after a layer's tensor exists, in the order of the model.

    A module that also runs before, or that the layer is inside of, is not in the list: changing it could change the
    layer's own activation.

    Args:
        recogniser: the model.
        path: of the layer.
        x: one input, `[1, C, T, H, W]`.
    """
    seen: list[bool] = []
    before: set[nn.Module] = set()
    after: set[nn.Module] = set()

    def begin(module: nn.Module, _: Any) -> None:
        (after if seen else before).add(module)

    with ExitStack() as stack, torch.no_grad():
        for module in recogniser.module.modules():
            stack.callback(module.register_forward_pre_hook(begin).remove)
        # Last, so that the hook of the layer's input runs after `begin` of the same module.
        stack.enter_context(watched(recogniser.module, path, lambda _: seen.append(True)))
        recogniser.logits(x)
    with_weights = (m for m in recogniser.module.modules() if any(True for _ in m.parameters(recurse=False)))
    return [module for module in with_weights if module in after and module not in before]


def layers_not_after(recogniser: Recogniser, path: str, paths: Sequence[str], x: torch.Tensor) -> list[str]:
    """Return those of `paths` whose tensor exists when that of `path` does: shuffling what runs after keeps them."""
    order: list[str] = []
    with ExitStack() as stack, torch.no_grad():
        for one in dict.fromkeys([*paths, path]):

            def see(_: torch.Tensor, one: str = one) -> None:
                order.append(one)

            stack.enter_context(watched(recogniser.module, one, see))
        recogniser.logits(x)
    return order[: order.index(path) + 1]

"""A table of a model's layers, to choose from: shapes, cost, and whether a sign count has a meaning."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from vtcav_ray.models.base import Recogniser
from vtcav_ray.models.layers import INPUT, Form, observe, resolve_layer, watched

# Two clips' gradients are equal below this relative difference. Degenerate layers show 1e-7 or less.
SAME = 1e-4


@dataclass(frozen=True)
class LayerRow:
    """One layer.

    Attributes:
        name: path of the module; with `:in`, the module's input.
        alias: `early`, `middle`, ...; empty: it has none.
        output: shape of the module's own tensor, for one clip.
        shape: T', H', W', C as seen by the projections; `mean` has C numbers, `flat` the product of all four.
        parameters: number of the module's parameters.
        cost: of a forward pass, and a backward pass down to this layer, in forward passes of the whole model: 1 plus
            the share of the operations (matrix products and convolutions) after the layer.
        degenerate: the gradient is the same for two different clips, so a sign count has no meaning here.
    """

    name: str
    alias: str
    output: tuple[int, ...]
    shape: tuple[int, int, int, int]
    parameters: int
    cost: float
    degenerate: bool


def layer_table(
    recogniser: Recogniser, names: Sequence[str] | None = None, *, depth: int = 3, frames: int | None = None
) -> list[LayerRow]:
    """Run two synthetic clips forward and backward, and describe the layers in the order in which they run.

    Args:
        recogniser: the model.
        names: aliases or paths; None: all modules whose path has at most `depth` parts, and the aliases.
        depth: see `names`.
        frames: T of the clips; None: the config's number, else 16.

    Returns:
        One row per layer that runs once and outputs one tensor that lies on the clip. Other modules cannot be explained
        and are left out.

    Raises:
        ConfigError: the model has no layer of that name, or does not take clips of this length.
    """
    alias_of = {path: alias for alias, path in recogniser.layer_aliases.items()}
    if names is None:
        modules = [name for name, _ in recogniser.module.named_modules() if name and name.count(".") < depth]
        paths = list(dict.fromkeys([*modules, *alias_of]))
    else:
        paths = [resolve_layer(recogniser, name, "--layer") for name in names]
    x = _two_clips(recogniser, frames)
    forms = {}
    for path, found in observe(recogniser, paths, x[:1]).items():
        if len(found) == 1 and isinstance(found[0], Form):
            forms[path] = found[0]
    taken: dict[str, torch.Tensor] = {}
    operations_before: dict[str, int] = {}
    counter = FlopCounterMode(display=False)

    def take(path: str, raw: torch.Tensor) -> torch.Tensor:
        operations_before[path] = counter.get_total_flops()
        taken[path] = raw if raw.requires_grad else raw.detach().requires_grad_()
        return taken[path].clone()

    with ExitStack() as stack:
        for path in forms:
            stack.enter_context(watched(recogniser.module, path, partial(take, path)))
        with counter:
            logits = recogniser.logits(x)
    total = counter.get_total_flops()
    gradients = torch.autograd.grad(logits[:, 0].sum(), list(taken.values()), materialize_grads=True)
    rows = []
    for path, gradient in zip(taken, gradients, strict=True):
        g = forms[path].present(gradient).flatten(1)
        rows.append(
            LayerRow(
                name=path,
                alias=alias_of.get(path, ""),
                output=(taken[path].shape[0] // 2, *taken[path].shape[1:]),
                shape=forms[path].shape,
                parameters=sum(
                    p.numel() for p in recogniser.module.get_submodule(path.removesuffix(INPUT)).parameters()
                ),
                cost=1.0 + (total - operations_before[path]) / total,
                degenerate=bool((g[0] - g[1]).norm() <= SAME * g.norm()),
            )
        )
    return rows


def _two_clips(recogniser: Recogniser, frames: int | None) -> torch.Tensor:
    """Return `[2, 3, T, H, W]`, normalised: noise, and a bright bar that moves over a dark background."""
    sampling = recogniser.preprocessor.sampling
    t = frames or recogniser.frames or (sampling.frames if sampling else 16)
    recogniser.check_frames(t)
    h, w = recogniser.input_size
    stream = torch.Generator().manual_seed(0)
    noise = torch.randn(3, t, h, w, generator=stream)
    bar = torch.full((3, t, h, w), -1.5)
    for step in range(t):
        left = step * w // (2 * t)
        bar[:, step, :, left : left + w // 4] = 2.0
    return torch.stack([noise, bar]).to(recogniser.device)

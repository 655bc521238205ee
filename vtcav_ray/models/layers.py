"""Layers by name, and their activations in one form, `[B, T', H', W', C]`, for any layout of the module's output.

A layer is a module's path (`backbone.layers.2`: its output), a path with `:in` (its input), or an alias of the
recogniser (`early`, `middle`, `late`, `head`). The layout of a module's output is found by running the model once: the
number of channels of the last convolution, linear or normalisation layer that ran identifies the channel axis of the
output. The conversion from the module's form to this one is a fixed permutation (and a selection of tokens). It is
linear, so gradients are converted in the same way as activations.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vtcav_ray.errors import ConfigError
from vtcav_ray.models.base import Recogniser, TokenGrid

INPUT = ":in"


@dataclass(frozen=True)
class Form:
    """The memory layout of a layer's tensor, for one size of input.

    Attributes:
        kind: `channels_first` ([B·m, C, *grid]), `channels_last` ([B·m, *grid, C]), `tokens` ([B·m, extra + N, C]) or
            `sequence_first` ([extra + N, B·m, C]).
        frames_in_batch: m, the time steps in the module's batch axis, where the clip's index varies slower; else 1.
        grid: T', H', W'.
        channels: C.
        extra: tokens before those of the grid (a class token), not part of the activation.
        order: of a sequence's tokens.
    """

    kind: str
    frames_in_batch: int
    grid: tuple[int, int, int]
    channels: int
    extra: int = 0
    order: str = "thw"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """T', H', W', C."""
        return (*self.grid, self.channels)

    def present(self, raw: torch.Tensor) -> torch.Tensor:
        """Convert the module's own tensor to `[B, T', H', W', C]`."""
        t, h, w = self.grid
        m, c = self.frames_in_batch, self.channels
        inner = (t // m, h, w)
        if self.kind == "channels_first":
            x = raw.reshape(-1, m, c, *inner).permute(0, 1, 3, 4, 5, 2)
        elif self.kind == "channels_last":
            x = raw.reshape(-1, m, *inner, c)
        else:
            x = raw.transpose(0, 1) if self.kind == "sequence_first" else raw
            x = x[:, self.extra :]
            if self.order == "hwt":
                x = x.reshape(-1, m, h, w, t // m, c).permute(0, 1, 4, 2, 3, 5)
            else:
                x = x.reshape(-1, m, *inner, c)
        return x.reshape(x.shape[0], t, h, w, c)

    def restore(self, shown: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Convert `[B, T', H', W', C]` to the module's own form, with the size of `like` and zeros at extra tokens."""
        template = torch.arange(like.numel(), device=like.device).reshape(like.shape)
        places = self.present(template).reshape(-1)
        flat = torch.zeros(like.numel(), dtype=like.dtype, device=like.device)
        flat[places] = shown.to(like.dtype).reshape(-1)
        return flat.reshape(like.shape)


def resolve_layer(recogniser: Recogniser, name: str, key: str = "activations.layers") -> str:
    """Return the layer's path for an alias or a path.

    Args:
        key: of the config, or option of the command, that names the layer; for the message.

    Raises:
        ConfigError: no such layer; the message lists the nearest names and the aliases.
    """
    path = recogniser.layer_aliases.get(name, name)
    modules = dict(recogniser.module.named_modules())
    if path.removesuffix(INPUT) in modules and path:
        return path
    near = difflib.get_close_matches(name, [*recogniser.layer_aliases, *(m for m in modules if m)], n=4, cutoff=0.5)
    hint = f" Nearest: {', '.join(near)}." if near else ""
    aliases = ", ".join(f"{a} = {p}" for a, p in recogniser.layer_aliases.items())
    raise ConfigError(f"{key}: the model has no layer `{name}`.{hint} Aliases: {aliases or 'none'}.")


def _raise(error: ConfigError) -> None:
    raise error


@contextmanager
def watched(
    module: nn.Module,
    path: str,
    see: Callable[[torch.Tensor], torch.Tensor | None],
    refuse: Callable[[ConfigError], None] = _raise,
) -> Iterator[None]:
    """Pass the layer's tensor to `see` whenever the model runs inside the context, and replace it by the return value.

    `refuse` is called with an error if an output holds no tensor.
    """
    part = module.get_submodule(path.removesuffix(INPUT))

    def exchange(value: Any) -> Any:
        """Pass the first tensor of a module's output (or arguments) to `see`, and replace it by the return value."""
        if isinstance(value, torch.Tensor):
            return see(value)
        if isinstance(value, tuple | list) and value and isinstance(value[0], torch.Tensor):
            changed = see(value[0])
            return None if changed is None else type(value)([changed, *value[1:]])
        what = type(value).__name__
        return refuse(ConfigError(f"Layer `{path}` gives {what}, not a tensor: name a module inside it."))

    if path.endswith(INPUT):
        handle = part.register_forward_pre_hook(lambda _, args: exchange(args))
    else:
        handle = part.register_forward_hook(lambda _, __, output: exchange(output))
    try:
        yield
    finally:
        handle.remove()


def find_forms(recogniser: Recogniser, paths: Sequence[str], x: torch.Tensor) -> dict[str, Form]:
    """Run the model on `x` `[B', C, T, H, W]` (one clip is enough) and find the memory layout of each layer.

    The model runs once for each layer and input size; results are cached in the recogniser.

    Raises:
        ConfigError: a layer does not run, runs more than once, or its channel axis is ambiguous.
    """
    size = tuple(x.shape[1:])
    unknown = [path for path in paths if (path, size) not in recogniser.forms]
    for path, found in observe(recogniser, unknown, x).items() if unknown else ():
        if not found:
            raise ConfigError(
                f"Layer `{path}` does not run in the model's forward pass. `vtcav layers CONFIG` lists those that do."
            )
        if isinstance(found[0], ConfigError):
            raise found[0]
        if len(found) > 1:
            raise ConfigError(f"Layer `{path}` runs {len(found)} times in one forward pass: name one that runs once.")
        recogniser.forms[path, size] = found[0]
    return {path: recogniser.forms[path, size] for path in paths}


def observe(recogniser: Recogniser, paths: Sequence[str], x: torch.Tensor) -> dict[str, list[Form | ConfigError]]:
    """Run the model once, and return each layer's form, or why it has none, for each time that it runs."""
    found: dict[str, list[Form | ConfigError]] = {path: [] for path in paths}
    last: list[tuple[int, bool]] = [(x.shape[1], True)]  # channels of the last weighted layer, are they before the grid

    def note(part: nn.Module, _: Any, __: Any) -> None:
        if (channels := _channels(part)) is not None:
            last[:] = [channels]

    with ExitStack() as stack, torch.no_grad():
        for part in recogniser.module.modules():
            if _channels(part) is not None:
                stack.callback(part.register_forward_hook(note).remove)
        for path in paths:
            grids = _grids_with_tokens(recogniser, path, stack)

            def see(raw: torch.Tensor, path: str = path, grids: list[tuple[int, ...]] = grids) -> None:
                try:
                    found[path].append(_form(recogniser, path, raw, x, last[0], grids[-1] if grids else None))
                except ConfigError as error:
                    found[path].append(error)

            def refuse(error: ConfigError, path: str = path) -> None:
                found[path].append(error)

            stack.enter_context(watched(recogniser.module, path, see, refuse))
        recogniser.logits(x)
    return found


def _grids_with_tokens(recogniser: Recogniser, path: str, stack: ExitStack) -> list[tuple[int, ...]]:
    """Collect the (T', H', W') that some modules (MViT's blocks) return or take together with their tokens."""
    grids: list[tuple[int, ...]] = []
    part = recogniser.module.get_submodule(path.removesuffix(INPUT))

    def collect(value: Any) -> None:
        if isinstance(value, tuple | list) and len(value) == 2 and _is_grid(value[1]):
            grids.append(tuple(int(n) for n in value[1]))

    if path.endswith(INPUT):
        handle = part.register_forward_pre_hook(lambda _, args: collect(args))
    else:
        handle = part.register_forward_hook(lambda _, __, output: collect(output))
    stack.callback(handle.remove)
    return grids


def _is_grid(value: Any) -> bool:
    return isinstance(value, tuple | list | torch.Size) and len(value) == 3 and all(isinstance(n, int) for n in value)


def _channels(part: nn.Module) -> tuple[int, bool] | None:
    """Return a weighted layer's output channels, and whether they come before the grid; None: not a weighted layer."""
    match part:
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            return part.out_channels, True
        case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.BatchNorm3d():
            return part.num_features, True
        case nn.GroupNorm():
            return part.num_channels, True
        case nn.Linear():
            return part.out_features, False
        case nn.LayerNorm():
            return part.normalized_shape[-1], False
        case nn.MultiheadAttention():
            return part.embed_dim, False
    return None


def _form(
    recogniser: Recogniser,
    path: str,
    raw: torch.Tensor,
    x: torch.Tensor,
    last: tuple[int, bool],
    token_grid: tuple[int, ...] | None,
) -> Form:
    clips, frames = x.shape[0], x.shape[2]
    shape, (channels, leads) = tuple(raw.shape), last
    if raw.ndim == 3:
        return _token_form(path, shape, clips, x, recogniser.tokens, token_grid)
    if shape[0] % clips or raw.ndim not in (2, 4, 5):
        raise ConfigError(
            f"Layer `{path}` gives a tensor of shape {list(shape)}, which does not lie on the clips: name another one."
        )
    m = shape[0] // clips
    if raw.ndim == 2:
        return Form("channels_last", m, (m, 1, 1), shape[1])
    kind = recogniser.layouts.get(path) or _kind(path, shape, channels, leads)
    grid = shape[2:] if kind == "channels_first" else shape[1:-1]
    t, h, w = grid if len(grid) == 3 else (1, *grid)
    assert m == 1 or m == frames or frames % m == 0, f"{path}: {shape} from {clips} clips of {frames} frames"
    return Form(kind, m, (m * t, h, w), shape[1] if kind == "channels_first" else shape[-1])


def _kind(path: str, shape: tuple[int, ...], channels: int, leads: bool) -> str:
    first, final = shape[1] == channels, shape[-1] == channels
    if first and final:
        first, final = leads, not leads
    if first == final:
        raise ConfigError(
            f"Layer `{path}` gives a tensor of shape {list(shape)}, and neither its first nor its last axis has the "
            f"{channels} channels of the layer before: say which in the recogniser's `layouts`."
        )
    return "channels_first" if first else "channels_last"


def _token_form(
    path: str,
    shape: tuple[int, ...],
    clips: int,
    x: torch.Tensor,
    tokens: TokenGrid | None,
    grid: tuple[int, ...] | None,
) -> Form:
    """Return the form of a token sequence: on the module's own grid, the model family's, or, if unknown, a line."""
    frames, height, width = x.shape[2:]
    if grid is not None:
        t, h, w = grid
        return Form("tokens", 1, (t, h, w), shape[2], extra=shape[1] - t * h * w)
    if tokens is not None:
        h, w, t = height // tokens.patch, width // tokens.patch, frames // tokens.tubelet
        for kind, axis in (("tokens", 1), ("sequence_first", 0)):
            length, batch = shape[axis], shape[1 - axis]
            if batch % clips:
                continue
            m = batch // clips
            steps = t if m == 1 else 1  # with frames in the batch, a sequence is one time step
            if 0 <= (extra := length - steps * h * w) <= 1:
                return Form(kind, m, (m * steps, h, w), shape[2], extra, tokens.order)
    if shape[0] % clips:
        raise ConfigError(
            f"Layer `{path}` gives a tensor of shape {list(shape)}, which does not lie on the clips: name another one."
        )
    m = shape[0] // clips
    return Form("tokens", m, (m, 1, shape[1]), shape[2])

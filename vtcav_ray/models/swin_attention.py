"""Video Swin's blocks with PyTorch's fused attention, and one gather instead of MMAction2's three copies.

MMAction2 computes window attention step by step: scores = q kᵀ, add the relative position bias, add the shift mask,
softmax, times v. Every step reads and writes `[windows, heads, 392, 392]` numbers, and so does the backward pass; on a
CPU this takes half of the model's time. `scaled_dot_product_attention` does it in one pass over small tiles, with bias
and mask as its additive mask.

The mask of a shifted block would be as large as the scores themselves, one for each window (236 MB per block and clip
at Swin-T's first stage). But it only says that positions on different sides of a seam do not attend to each other. So a
window with seams is cut into parts, and each part attends within itself: no mask, and a fifth less work. (MMAction2
adds -100 across a seam; the remaining weight, 1e-44, is dropped here.) Windows have at most 8 kinds of seams, and all
parts of one kind go into one call.

Padding, cyclic shift, and cutting into windows and parts are together one permutation of rows. It is found once, by
applying these steps to the row numbers, and then applied as a gather, whose backward is the gather of the inverse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from vtcav_ray.models.swin_dense import on_cpu_as_it_is, slim_swin

_Qkv = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

MASK_ALIGNMENT = 8  # numbers

# Letters in shapes: B clips, W windows per clip, N positions in a window or part, R rows, C channels, H heads,
# K = C / H.


def fuse_window_attention(module: nn.Module) -> int:
    """Replace the forward pass of every `SwinTransformerBlock3D` in a module; `slim_swin` the rest. Works in place.

    For evaluation only: there is no dropout, and no gradient of the position bias and the MLPs' weights. Weights and
    their names do not change. `restore_mmaction` undoes the replacement.

    Returns:
        Number of changed blocks; 0 if the model is not a Video Swin.
    """
    blocks: list[Any] = [part for part in module.modules() if type(part).__name__ == "SwinTransformerBlock3D"]
    for block in blocks:
        block.forward = MethodType(_block, block)
        block.attn.position_bias = None
    slim_swin(module)
    return len(blocks)


def restore_mmaction(module: nn.Module) -> None:
    """Restore the original forward pass of every part of a module."""
    for part in module.modules():
        part.__dict__.pop("forward", None)


def _block(self: Any, x: torch.Tensor, mask_matrix: torch.Tensor) -> torch.Tensor:
    """Replace `SwinTransformerBlock3D.forward`: `[B, D, H, W, C]`, and the mask of its stage `[W, N, N]`."""
    # If a stage's input is channels-first in memory, sums would keep that layout from block to block.
    x = x.contiguous()
    x = x + self.drop_path(_attention(self, x, mask_matrix))
    return x + self.drop_path(self.mlp(self.norm2(x)))


def _attention(self: Any, x: torch.Tensor, mask_wnn: torch.Tensor) -> torch.Tensor:
    size, c = x.shape[:4], x.shape[4]
    window = tuple(min(n, w) for n, w in zip(size[1:], self.window_size, strict=True))
    # No shift along an axis that fits into one window.
    shift = tuple(0 if n <= w else s for n, w, s in zip(size[1:], self.window_size, self.shift_size, strict=True))
    attention = self.attn
    places, biases = _tables(attention, size, window, shift, mask_wnn, x.device)
    rows_rc = _Gather.apply(self.norm1(x).view(-1, c), places.order, places.inverse, places.padded, False)
    attended = [
        _attend(attention, *qkv, bias_hnn)
        for qkv, bias_hnn in zip(_projected(attention, rows_rc, places.sizes, biases), biases, strict=True)
    ]
    out_rc = attention.proj_drop(attention.proj(torch.cat(attended) if len(attended) > 1 else attended[0]))
    return _Gather.apply(out_rc, places.inverse, places.order, False, places.padded).view(x.shape)


def exclude_from_compilation() -> None:
    """Let `torch.compile` call `_tables`. It would trace into the cached functions and recompute them at every call.

    Not a decorator of `_tables`: that imports the compiler, a second of CPU time in every process with a model.
    """
    global _tables
    _tables = torch.compiler.disable(_tables)


def _tables(
    self: Any,
    size: torch.Size,
    window: tuple[int, ...],
    shift: tuple[int, ...],
    mask_wnn: torch.Tensor,
    device: torch.device,
) -> tuple[_Places, list[torch.Tensor]]:
    """Return where the rows of `[B, D, H, W, C]` go, and the bias of each kind of part; both are cached."""
    parts = _parts(window, _Identity(mask_wnn) if any(shift) else None)
    return _places(size, window, shift, parts, device), _position_biases(self, window, parts)


def _projected(self: Any, rows_rc: torch.Tensor, sizes: list[int], biases: list[torch.Tensor]) -> list[_Qkv]:
    """Return queries, keys and values `[M, N, H, K]` of the M parts of each kind."""
    lengths = [bias_hnn.shape[1] for bias_hnn in biases]
    # Hooks on the module (it may be the explained layer) must run.
    heard = self.qkv._forward_hooks or self.qkv._forward_pre_hooks
    if on_cpu_as_it_is(rows_rc) and not heard:
        found = _Projection.apply(rows_rc, self.qkv.weight, self.qkv.bias, sizes, lengths, self.num_heads)
    else:
        found = _views(self.qkv(rows_rc), sizes, lengths, self.num_heads)
    return [(found[i], found[i + 1], found[i + 2]) for i in range(0, len(found), 3)]


def _views(qkv_rc: torch.Tensor, sizes: list[int], lengths: list[int], heads: int) -> tuple[torch.Tensor, ...]:
    """Split `[R, 3·C]` without a copy: q, k and v `[M, N, H, K]` of each kind of part, one after the other."""
    parts = (
        kind.view(-1, n, 3, heads, kind.shape[1] // 3 // heads)
        for kind, n in zip(qkv_rc.split(sizes), lengths, strict=True)
    )
    return tuple(each for part in parts for each in part.unbind(2))


class _Projection(torch.autograd.Function):
    """The product that computes queries, keys and values from rows `[R, C]`: three views for each kind of part.

    Backward accumulates three products in the rows' gradient. Autograd would first concatenate the views' gradients by
    copies, part by part and then kind by kind. Computes no gradients of the weights.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows_rc: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        sizes: list[int],
        lengths: list[int],
        heads: int,
    ) -> tuple[torch.Tensor, ...]:
        ctx.save_for_backward(weight)
        ctx.sizes = sizes
        return _views(F.linear(rows_rc, weight, bias), sizes, lengths, heads)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        c = weight.shape[1]
        found = weight.new_empty(sum(ctx.sizes), c)
        for kind, piece in enumerate(found.split(ctx.sizes)):
            for number, grad in enumerate(grads[3 * kind : 3 * kind + 3]):
                torch.addmm(
                    piece, grad.reshape(-1, c), weight[number * c : (number + 1) * c], beta=min(number, 1), out=piece
                )
        return found, None, None, None, None, None


def _attend(
    self: Any, q_mnhk: torch.Tensor, k_mnhk: torch.Tensor, v_mnhk: torch.Tensor, bias_hnn: torch.Tensor
) -> torch.Tensor:
    """Compute attention inside each of M parts, with one bias for all: `[M·N, C]`."""
    m, n, heads, channels = q_mnhk.shape
    q, k, v = (part.transpose(1, 2) for part in (q_mnhk, k_mnhk, v_mnhk))
    bias = _aligned(bias_hnn.to(q.dtype)).expand(m, -1, -1, -1)  # no copy: one for all
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self.scale)
    return out.transpose(1, 2).reshape(m * n, heads * channels)


def _aligned(bias_hnn: torch.Tensor) -> torch.Tensor:
    """Return the same numbers; on a GPU, with rows that begin at multiples of 8 numbers.

    CUDA's fused attention requires this alignment of its mask, and otherwise pads the expanded one: a copy for each of
    the M parts. Whole windows (392 positions) are aligned; parts beside a seam (36, 84, 196) are not.
    """
    n = bias_hnn.shape[-1]
    if bias_hnn.device.type == "cpu" or n % MASK_ALIGNMENT == 0:
        return bias_hnn
    return F.pad(bias_hnn, (0, -n % MASK_ALIGNMENT))[..., :n]


def _position_biases(self: Any, window: tuple[int, ...], parts: _Parts) -> list[torch.Tensor]:
    """Return the relative position bias of each kind of part, `[H, n, n]`; cached until its table changes."""
    table = self.relative_position_bias_table
    key = (parts, table.device, table.data_ptr(), table._version, table.dtype)
    if self.position_bias is None or self.position_bias[0] != key:
        n = math.prod(window)
        # As in MMAction2, also if a window is smaller than the one that the table was made for.
        index = self.relative_position_index[:n, :n]
        biases = []
        for _, inside in parts.kinds:
            chosen = inside.to(table.device)
            biases.append(table.detach()[index[chosen][:, chosen]].permute(2, 0, 1).contiguous())
        self.position_bias = (key, biases)
    return self.position_bias[1]


@dataclass(frozen=True, eq=False)
class _Parts:
    """For each kind of part: the windows of a clip that have one, and the window's positions (of N) inside it."""

    kinds: list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class _Places:
    """The order of the rows of `[B·D·H·W, C]`, kind by kind, window by window.

    Attributes:
        order: `[R]`, the row at each position; for padding, one past the last row.
        inverse: `[B·D·H·W]`, the position of each row.
        padded: whether there is padding.
        sizes: rows of each kind of part.
    """

    order: torch.Tensor
    inverse: torch.Tensor
    padded: bool
    sizes: list[int]


class _Identity:
    """A tensor as a key, equal only to itself. Holds the tensor, so that its address is not reused."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __hash__(self) -> int:
        return id(self.tensor)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.tensor is self.tensor


@lru_cache(maxsize=64)
def _parts(window: tuple[int, ...], mask: _Identity | None) -> _Parts:
    """Return the kinds of parts of a stage's windows.

    Args:
        window: positions along D, H, W.
        mask: of a shifted block, `[W, N, N]`: 0 inside a part, -100 across a seam; None: no seams. MMAction2 caches its
            masks, so equal sizes have the same tensor.
    """
    if mask is None:
        return _Parts([(torch.tensor([0]), torch.arange(math.prod(window)))])
    seams, kind_of = torch.unique(mask.tensor.cpu().flatten(1), dim=0, return_inverse=True)
    kinds = []
    for number, seam in enumerate(seams.view(-1, *mask.tensor.shape[1:])):
        part_of = (seam == 0).int().argmax(1)  # a part's name is its first position
        having = (kind_of == number).nonzero()[:, 0]
        kinds += [(having, (part_of == part).nonzero()[:, 0]) for part in part_of.unique()]
    return _Parts(kinds)


@lru_cache(maxsize=64)
def _places(
    size: torch.Size, window: tuple[int, ...], shift: tuple[int, ...], parts: _Parts, device: torch.device
) -> _Places:
    """Apply MMAction2's reordering of rows to the row numbers.

    Args:
        size: B, D, H, W.
        window: positions along D, H, W.
        shift: cyclic shift along D, H, W.
        parts: of the windows; without seams, one part is a whole window.
        device: of the result.
    """
    b, rows = size[0], size.numel()
    numbers = torch.arange(rows).view(size)
    padding = [(-n) % w for n, w in zip(size[1:], window, strict=True)]
    numbers = F.pad(numbers, (0, padding[2], 0, padding[1], 0, padding[0]), value=rows)
    numbers = numbers.roll([-s for s in shift], (1, 2, 3))
    grid = [n // w for n, w in zip(numbers.shape[1:], window, strict=True)]
    cut = numbers.view(b, grid[0], window[0], grid[1], window[1], grid[2], window[2])
    windows_wbn = cut.permute(1, 3, 5, 0, 2, 4, 6).reshape(math.prod(grid), b, -1)
    if any(shift):
        pieces = [windows_wbn[having][:, :, inside].flatten() for having, inside in parts.kinds]
    else:
        pieces = [windows_wbn.flatten()]
    order = torch.cat(pieces)
    inverse = torch.empty(rows + 1, dtype=torch.int64)
    inverse[order] = torch.arange(len(order))  # all padding goes to the last entry, which is cut off
    sizes = [len(piece) for piece in pieces]
    return _Places(order.to(device), inverse[:rows].to(device), any(padding), sizes)


class _Gather(torch.autograd.Function):
    """Reordering of rows. Backward is the gather of the inverse; autograd would scatter and add."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, order: torch.Tensor, inverse: torch.Tensor, pads: bool, pads_back: bool
    ) -> torch.Tensor:
        ctx.inverse, ctx.pads_back = inverse, pads_back
        return _rows(x, order, pads)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:  # type: ignore[override]
        return _rows(grad, ctx.inverse, ctx.pads_back), None, None, None, None


def _rows(x: torch.Tensor, order: torch.Tensor, pads: bool) -> torch.Tensor:
    """Return `x[order]`; with `pads`, the index one past the last row gives zeros."""
    return (torch.cat([x, x.new_zeros(1, x.shape[1])]) if pads else x).index_select(0, order)

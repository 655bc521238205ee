"""Video Swin's MLPs, patch mergings and stage transitions without unnecessary copies.

- An MLP's hidden layer is four times as large as its input (77 MB per block and clip at Swin-T's first stage). On a CPU
  it is written to memory and read back for every step. Here the MLP processes pieces of rows that stay in the cache:
  product, GELU, product, then the next piece. The backward pass does the same. On a GPU the plain module is used.
- MMAction2 merges patches from four strided slices, and backward pads each of them with zeros and adds them up. One
  permutation gives the same result, and its backward is a permutation.
- Between stages MMAction2 copies the tensor to channels-first, and immediately back. Here it is a view.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

# Numbers in a piece of the hidden layer: 8 MB. Every product packs its weights again, a cost to spread over many rows
# (1 MB, for the second-level cache, left 85 rows per piece at Swin-T's last stage and halved its MLPs' speed).
PIECE = 2**21


def slim_swin(module: nn.Module) -> None:
    """Replace the forward pass of every MLP, patch merging and backbone of MMAction2's Video Swin, in place.

    Weights, their names, and the modules' inputs and outputs do not change. Only for evaluation with frozen weights.
    """
    for part in module.modules():
        kind = type(part).__name__
        if kind == "SwinTransformer3D":
            part.forward = MethodType(_backbone, part)  # type: ignore[method-assign]
        elif kind == "PatchMerging":
            part.forward = MethodType(_merge, part)  # type: ignore[method-assign]
        elif kind == "SwinTransformerBlock3D":
            mlp = part.get_submodule("mlp")
            if type(mlp.act) is nn.GELU:
                mlp.forward = MethodType(_mlp, mlp)  # type: ignore[method-assign]


def _backbone(self: Any, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Replace `SwinTransformer3D.forward`: `[B, 3, T, H, W]` -> `[B, C, T', H', W']`, or one per `out_indices`."""
    x = self.pos_drop(self.patch_embed(x))
    outs = []
    for i, layer in enumerate(self.layers):
        x = layer(x, do_downsample=self.out_after_downsample)  # B D H W C
        if i in self.out_indices:
            outs.append(getattr(self, f"norm{i}")(x).permute(0, 4, 1, 2, 3).contiguous())
        if layer.downsample is not None and not self.out_after_downsample:
            x = layer.downsample(x)
        if i < self.num_layers - 1:
            x = x.permute(0, 4, 1, 2, 3)  # the next stage turns it back
    return outs[0] if len(outs) == 1 else tuple(outs)


def _merge(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Replace `PatchMerging.forward`: `[B, D, H, W, C]` -> `[B, D, H/2, W/2, 2·C]`."""
    b, d, h, w, c = x.shape
    if h % 2 or w % 2:
        x = F.pad(x, (0, 0, 0, w % 2, 0, h % 2))
        h, w = h + h % 2, w + w % 2
    # The four places of a patch in MMAction2's order: (0, 0), (1, 0), (0, 1), (1, 1).
    patches = x.reshape(b, d, h // 2, 2, w // 2, 2, c).permute(0, 1, 2, 4, 5, 3, 6)
    return self.reduction(self.norm(patches.reshape(b, d, h // 2, w // 2, 4 * c)))


def _mlp(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Replace `Mlp.forward`: `[..., C]` -> `[..., C]`."""
    if not on_cpu_as_it_is(x):
        return self.fc2(self.act(self.fc1(x)))
    rows = x.reshape(-1, x.shape[-1])
    weights = (self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)
    return _PiecewiseMlp.apply(rows, *weights, self.act.approximate).view(x.shape)


def on_cpu_as_it_is(x: torch.Tensor) -> bool:
    """Return whether to use this file's memory-saving code: on a CPU, without autocast or compilation."""
    plain = x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
    return not plain and x.dtype in (torch.float32, torch.float64)


class _PiecewiseMlp(torch.autograd.Function):
    """fc2(gelu(fc1(x))) for rows `[R, C]`, piece by piece. Computes no gradients of the weights."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        w1: torch.Tensor,
        b1: torch.Tensor,
        w2: torch.Tensor,
        b2: torch.Tensor,
        approximate: str,
    ) -> torch.Tensor:
        rows, hidden = len(x), len(w1)
        step = max(1, PIECE // hidden)
        keep = ctx.needs_input_grad[0]
        before = x.new_empty(rows if keep else min(step, rows), hidden)  # the GELU's input
        after = x.new_empty(min(step, rows), hidden)
        y = torch.empty_like(x)
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            inner = before[start:stop] if keep else before[: stop - start]
            outer = after[: stop - start]
            torch.addmm(b1, x[start:stop], w1.t(), out=inner)
            torch.ops.aten.gelu.out(inner, approximate=approximate, out=outer)
            torch.addmm(b2, outer, w2.t(), out=y[start:stop])
        ctx.save_for_backward(before, w1, w2)
        ctx.approximate = approximate
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        before, w1, w2 = ctx.saved_tensors
        rows, hidden = before.shape
        step = max(1, PIECE // hidden)
        grad = grad.contiguous()
        inner = grad.new_empty(min(step, rows), hidden)
        found = torch.empty_like(grad)
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            piece = inner[: stop - start]
            torch.mm(grad[start:stop], w2, out=piece)
            torch.ops.aten.gelu_backward.grad_input(
                piece, before[start:stop], approximate=ctx.approximate, grad_input=piece
            )
            torch.mm(piece, w1, out=found[start:stop])
        return found, None, None, None, None, None

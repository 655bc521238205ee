"""The planted world's recogniser without MMAction2: the parts of its video Swin, under the same names.

MMAction2 is an extra, and its metadata brings further builds of OpenCV. With this file the packaged model, and with it
`vtcav demo`, runs without MMAction2. It is used where MMAction2 is installed, too: its import takes a second in every
process. It has only what `asset:recogniser.py` uses, and no training. Each class has the
name, the parameters and the attributes of the class that it replaces, so weights, layers and families are the same.
Each forward pass is the one that `vtcav_ray.models.swin_attention` also gives to MMAction2's classes, so results are
the same. `tests/models/test_planted_swin.py` compares both.

After MMAction2 1.2.0 (Apache-2.0), `mmaction.models.backbones.swin` and `mmaction.models.heads.i3d_head`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from vtcav_ray.models.swin_attention import fuse_window_attention

Size3 = tuple[int, int, int]  # along time, height, width


def build_planted_swin(model: Mapping[str, Any]) -> nn.Module:
    """Build the network of the packaged config in eval mode. Its weights are to be loaded.

    Args:
        model: the `model` dictionary of `asset:recogniser.py`.
    """
    backbone, head = model["backbone"], model["cls_head"]
    arch = backbone["arch"]
    module = Recognizer3D(
        SwinTransformer3D(
            arch["embed_dims"],
            arch["depths"],
            arch["num_heads"],
            tuple(backbone["patch_size"]),
            tuple(backbone["window_size"]),
        ),
        I3DHead(head["in_channels"], head["num_classes"]),
    )
    fuse_window_attention(module)
    return module.eval()


class Recognizer3D(nn.Module):
    """A backbone and a head."""

    with_neck = False

    def __init__(self, backbone: SwinTransformer3D, cls_head: I3DHead) -> None:
        super().__init__()
        self.backbone, self.cls_head = backbone, cls_head


class I3DHead(nn.Module):
    """The mean over all places, and one linear layer: `[B, C, T, H, W]` -> `[B, classes]`."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc_cls = nn.Linear(in_channels, num_classes)
        self.avg_pool = nn.AdaptiveAvgPool3d((1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc_cls(self.avg_pool(x).flatten(1))


class SwinTransformer3D(nn.Module):
    """The backbone: `[B, 3, T, H, W]` -> `[B, C, T', H', W']`. Its forward pass is `swin_dense._backbone`."""

    out_after_downsample = False

    def __init__(
        self, embed_dims: int, depths: Sequence[int], num_heads: Sequence[int], patch_size: Size3, window_size: Size3
    ) -> None:
        super().__init__()
        self.num_layers = len(depths)
        self.out_indices = (self.num_layers - 1,)
        self.patch_embed = PatchEmbed3D(embed_dims, patch_size)
        self.pos_drop = nn.Identity()
        widths = [embed_dims * 2**i for i in range(self.num_layers)]
        self.layers = nn.ModuleList(
            BasicLayer(width, depth, heads, window_size, merges=i < self.num_layers - 1)
            for i, (width, depth, heads) in enumerate(zip(widths, depths, num_heads, strict=True))
        )
        self.add_module(f"norm{self.num_layers - 1}", nn.LayerNorm(widths[-1]))


class PatchEmbed3D(nn.Module):
    """Patches as tokens: `[B, 3, T, H, W]` -> `[B, C, T', H', W']`. Sizes are multiples of the patch's."""

    def __init__(self, embed_dims: int, patch_size: Size3) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, embed_dims, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dims)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.proj(x)
        rows = self.norm(x.flatten(2).transpose(1, 2))
        return rows.transpose(1, 2).view(x.shape)


class BasicLayer(nn.Module):
    """A stage: `[B, C, D, H, W]` -> `[B, D, H, W, C]`. Every second block shifts its windows by half a window."""

    def __init__(self, width: int, depth: int, num_heads: int, window_size: Size3, *, merges: bool) -> None:
        super().__init__()
        half = (window_size[0] // 2, window_size[1] // 2, window_size[2] // 2)
        self.window_size, self.shift_size = window_size, half
        self.blocks = nn.ModuleList(
            SwinTransformerBlock3D(width, num_heads, window_size, half if i % 2 else (0, 0, 0)) for i in range(depth)
        )
        self.downsample = PatchMerging(width) if merges else None

    def forward(self, x: torch.Tensor, do_downsample: bool = True) -> torch.Tensor:
        sizes = list(zip(x.shape[2:], self.window_size, self.shift_size, strict=True))
        window = tuple(min(n, w) for n, w, _ in sizes)
        shift = tuple(0 if n <= w else s for n, w, s in sizes)
        padded = tuple(-(-n // w) * w for n, w in zip(x.shape[2:], window, strict=True))
        mask = shift_mask(padded, window, shift, x.device)
        x = x.permute(0, 2, 3, 4, 1)
        for block in self.blocks:
            x = block(x, mask)
        return self.downsample(x) if self.downsample is not None and do_downsample else x


class SwinTransformerBlock3D(nn.Module):
    """Attention and an MLP, each added to its input. Its forward pass is `swin_attention._block`."""

    def __init__(self, width: int, num_heads: int, window_size: Size3, shift_size: Size3) -> None:
        super().__init__()
        self.window_size, self.shift_size = window_size, shift_size
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention3D(width, num_heads, window_size)
        self.drop_path = nn.Identity()
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)


class WindowAttention3D(nn.Module):
    """The weights of attention in windows. `swin_attention._attention` computes it."""

    def __init__(self, width: int, num_heads: int, window_size: Size3) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (width // num_heads) ** -0.5
        d, h, w = window_size
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * d - 1) * (2 * h - 1) * (2 * w - 1), num_heads)
        )
        self.register_buffer("relative_position_index", position_index(window_size))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Identity()


class Mlp(nn.Module):
    """Two linear layers. Its forward pass is `swin_dense._mlp`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(4 * width, width)


class PatchMerging(nn.Module):
    """Four neighbours to one, of twice the width. Its forward pass is `swin_dense._merge`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)


def position_index(window: Size3) -> torch.Tensor:
    """Return the row of the position bias table for each pair of positions in a window, `[N, N]` integers."""
    places = torch.cartesian_prod(*(torch.arange(n) for n in window))  # N 3
    apart = places[:, None] - places[None] + torch.tensor(window) - 1
    _, h, w = window
    return apart @ torch.tensor([(2 * h - 1) * (2 * w - 1), 2 * w - 1, 1])


@lru_cache(maxsize=64)
def shift_mask(
    size: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...], device: torch.device
) -> torch.Tensor:
    """Return the mask of a stage's shifted blocks, `[windows, N, N]`: 0, or -100 across a seam. Equal sizes share one.

    Args:
        size: positions along D, H, W, multiples of the window's.
        window: positions along D, H, W.
        shift: along D, H, W.
        device: of the result.
    """
    region = torch.zeros(size, device=device)
    axes = [(slice(-w), slice(-w, -s), slice(-s, None)) for w, s in zip(window, shift, strict=True)]
    for number, place in enumerate(itertools.product(*axes)):
        region[place] = number
    grid = [n // w for n, w in zip(size, window, strict=True)]
    cut = region.view(grid[0], window[0], grid[1], window[1], grid[2], window[2])
    rows = cut.permute(0, 2, 4, 1, 3, 5).reshape(grid[0] * grid[1] * grid[2], -1)
    return (rows[:, None] != rows[:, :, None]).float() * -100.0

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch

from vtcav_ray.models import Recogniser
from vtcav_ray.models.swin_attention import fuse_window_attention


@pytest.mark.parametrize(
    ("size", "window"),
    [((8, 8, 8), (4, 4, 4)), ((4, 12, 8), (2, 4, 4)), ((3, 5, 9), (2, 4, 4)), ((2, 4, 4), (4, 4, 4))],
)
@pytest.mark.parametrize("clips", [1, 3])
def test_block_equals_mmaction_forward_and_backward(
    swin: Recogniser, size: tuple[int, ...], window: tuple[int, ...], clips: int
) -> None:
    """Also where a side is no multiple of the window (padding), and where a side fits in one (no shift)."""
    from mmaction.models.backbones.swin import BasicLayer

    torch.manual_seed(0)
    layer = BasicLayer(24, depth=2, num_heads=3, window_size=window).eval().requires_grad_(False)
    for block in layer.blocks:
        block.attn.relative_position_bias_table.normal_(std=0.5)
    fused = copy.deepcopy(layer)
    assert fuse_window_attention(fused) == 2
    x = torch.randn(clips, 24, *size, requires_grad=True)
    outputs = []
    for part in (layer, fused):
        y = part(x)
        (gradient,) = torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum(), x)
        outputs.append((y, gradient))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-5)


def test_whole_model_equals_mmaction(swin: Recogniser) -> None:
    plain: Any = copy.deepcopy(swin.module)
    for part in plain.modules():
        if type(part).__name__ == "SwinTransformerBlock3D":
            del part.forward
    x = torch.randn(2, 3, 16, 64, 64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    expected = plain.cls_head(plain.backbone(x))
    logits = swin.logits(x)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    (theirs,) = torch.autograd.grad(expected[:, 1].sum(), x)
    (ours,) = torch.autograd.grad(logits[:, 1].sum(), x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item())


def test_the_position_bias_follows_its_table(swin: Recogniser) -> None:
    recogniser = dataclasses.replace(swin, module=copy.deepcopy(swin.module))
    x = torch.randn(1, 3, 16, 64, 64)
    before = recogniser.logits(x)
    for name, weight in recogniser.module.named_parameters():
        if name.endswith("relative_position_bias_table"):
            weight.normal_(std=3.0)  # in place, as loading a checkpoint does
    assert not torch.allclose(recogniser.logits(x), before, atol=1e-3)


def test_nothing_to_fuse() -> None:
    assert fuse_window_attention(torch.nn.Conv3d(3, 4, 1)) == 0

from __future__ import annotations

import copy
import dataclasses
from types import MethodType
from typing import Any

import pytest
import torch

from vtcav_ray.models import Recogniser, swin_attention, swin_dense
from vtcav_ray.models.compiled import compile_blocks
from vtcav_ray.models.swin_attention import fuse_window_attention, restore_mmaction


@pytest.mark.parametrize(
    ("size", "window"),
    [((8, 8, 8), (4, 4, 4)), ((4, 12, 8), (2, 4, 4)), ((3, 5, 9), (2, 4, 4)), ((2, 4, 4), (4, 4, 4))],
)
@pytest.mark.parametrize("clips", [1, 3])
def test_block_equals_mmaction_forward_and_backward(
    swin: Recogniser, size: tuple[int, ...], window: tuple[int, ...], clips: int
) -> None:
    """This includes sides that are no multiple of the window (padding) and sides that fit in one window (no shift)."""
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


@pytest.mark.slow
def test_whole_model_equals_mmaction(swin: Recogniser) -> None:
    plain: Any = copy.deepcopy(swin.module)
    restore_mmaction(plain)
    assert not any("forward" in part.__dict__ for part in plain.modules())
    x = torch.randn(2, 3, 16, 64, 64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    expected = plain.cls_head(plain.backbone(x))
    logits = swin.logits(x)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    (theirs,) = torch.autograd.grad(expected[:, 1].sum(), x)
    (ours,) = torch.autograd.grad(logits[:, 1].sum(), x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize("size", [(2, 8, 6), (3, 5, 7)])
def test_stage_with_merging_equals_mmaction(
    swin: Recogniser, size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLPs run in pieces, the last one smaller. Merging of patches includes odd sides."""
    from mmaction.models.backbones.swin import BasicLayer, PatchMerging

    monkeypatch.setattr(swin_dense, "PIECE", 96 * 50)  # 192 and 210 rows: pieces of 50, and one of 42 or 10
    torch.manual_seed(0)
    layer = BasicLayer(24, depth=2, num_heads=3, window_size=(2, 4, 4), downsample=PatchMerging)
    layer.eval().requires_grad_(False)
    fused = copy.deepcopy(layer)
    fuse_window_attention(fused)
    x = torch.randn(2, 24, *size, requires_grad=True)
    outputs = []
    for part in (layer, fused):
        y = part(x)
        (gradient,) = torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum(), x)
        with torch.no_grad():
            torch.testing.assert_close(part(x), y, rtol=0, atol=1e-6)
        outputs.append((y, gradient))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-5)


def test_whoever_listens_to_the_projection_hears_it(swin: Recogniser) -> None:
    x = torch.randn(1, 3, 16, 64, 64)
    expected = swin.logits(x)
    heard: list[torch.Size] = []
    projection = swin.module.get_submodule("backbone.layers.0.blocks.0.attn.qkv")
    handle = projection.register_forward_hook(lambda _, __, y: heard.append(y.shape))
    torch.testing.assert_close(swin.logits(x), expected, rtol=0, atol=1e-6)
    handle.remove()
    assert len(heard) == 1


def test_an_mlp_in_pieces_equals_one_in_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmaction.models.backbones.swin import Mlp

    torch.manual_seed(0)
    plain = Mlp(8, 32).eval().requires_grad_(False)
    x = torch.randn(3, 7, 8, dtype=torch.float64, requires_grad=True)
    plain.double()
    pieces = copy.deepcopy(plain)
    monkeypatch.setattr(swin_dense, "PIECE", 32 * 4)  # 21 rows: five pieces of four, and one of one
    pieces.forward = MethodType(swin_dense._mlp, pieces)
    results = []
    for part in (plain, pieces):
        y = part(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), x)))
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-12)


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


@pytest.mark.full
def test_a_compiled_block_makes_its_tables_once(swin: Recogniser) -> None:
    """`torch.compile` traces into cached functions and bypasses their cache unless that is prevented."""
    copied = dataclasses.replace(swin, module=copy.deepcopy(swin.module))
    blocks = compile_blocks(copied.module, backend="eager")
    clips = torch.rand(1, 3, 16, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(copied.logits(clips), swin.logits(clips))
        before = swin_attention._places.cache_info()
        copied.logits(clips)
    after = swin_attention._places.cache_info()
    assert after.misses == before.misses
    assert after.hits == before.hits + blocks

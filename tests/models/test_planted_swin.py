"""The packaged recogniser without MMAction2 is the one that MMAction2 builds."""

from __future__ import annotations

import pytest
import torch

from vtcav_ray.config import ModelConfig
from vtcav_ray.models.config_files import read_config
from vtcav_ray.models.families import family_of
from vtcav_ray.models.planted_swin import build_planted_swin, position_index, shift_mask
from vtcav_ray.models.swin_attention import fuse_window_attention

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def both() -> tuple[torch.nn.Module, torch.nn.Module]:
    """MMAction2's network and ours, with the packaged weights."""
    from vtcav_ray.models.checkpoints import load_weights, read_checkpoint
    from vtcav_ray.models.mmaction import build_mmaction

    config = ModelConfig()
    parsed = read_config(config.config)
    theirs, ours = build_mmaction(parsed, config.config, seed=None), build_planted_swin(parsed.model)
    weights = read_checkpoint(config.checkpoint).weights
    for module in (theirs, ours):
        load_weights(module, weights, config.checkpoint)
    return theirs, ours


def logits_and_gradients(module: torch.nn.Module, clips: torch.Tensor) -> list[torch.Tensor]:
    """Return the logits, and the activation of each explained layer with its gradient."""
    family, kept = family_of(module), []
    layers = [module.get_submodule(name) for name in family.aliases.values()]
    hooks = [layer.register_forward_hook(lambda _m, _i, out: kept.append(out)) for layer in layers]
    x = clips.clone().requires_grad_()
    logits = module.cls_head(module.backbone(x))  # type: ignore[operator]
    for hook in hooks:
        hook.remove()
    assert len(kept) == len(layers) == 4
    return [logits, *kept, *torch.autograd.grad(logits[:, 1].sum(), [x, *kept])]


def test_names_shapes_and_layers_are_the_same(both: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    theirs, ours = both
    shapes = [{name: value.shape for name, value in module.state_dict().items()} for module in both]
    assert shapes[0] == shapes[1]
    assert family_of(theirs) == family_of(ours)
    assert type(theirs).__name__ == type(ours).__name__


@pytest.mark.parametrize("frames", [16, 24], ids=lambda n: f"{n} frames")
def test_logits_activations_and_gradients_are_the_same(
    both: tuple[torch.nn.Module, torch.nn.Module], frames: int
) -> None:
    theirs, ours = both
    clips = torch.randn(2, 3, frames, 64, 64, generator=torch.Generator().manual_seed(5))
    plain = logits_and_gradients(theirs, clips)  # MMAction2's own forward pass
    found = logits_and_gradients(ours, clips)
    for expected, value in zip(plain, found, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    fuse_window_attention(theirs)
    for expected, value in zip(logits_and_gradients(theirs, clips), found, strict=True):
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)
    from vtcav_ray.models.swin_attention import restore_mmaction

    restore_mmaction(theirs)


def test_windows_have_mmactions_index_and_mask(both: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    from mmaction.models.backbones.swin import compute_mask

    index = both[0].get_buffer("backbone.layers.0.blocks.0.attn.relative_position_index")
    assert torch.equal(position_index((8, 4, 4)), index)
    for size, window, shift in (((8, 16, 16), (8, 4, 4), (0, 2, 2)), ((16, 8, 4), (8, 4, 4), (4, 2, 0))):
        cpu = torch.device("cpu")
        assert torch.equal(shift_mask(size, window, shift, cpu), compute_mask(*size, window, shift, cpu))

"""Maps agree with a second implementation (Captum's LayerGradCam) and come from the right plays of the clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from vtcav_ray.config import ModelConfig
from vtcav_ray.gradcam.clip import MapSettings, examine
from vtcav_ray.gradcam.maps import GradCam, assemble, plays_of, seen_masks
from vtcav_ray.heatmaps.resample import in_time
from vtcav_ray.models import Recogniser, load_recogniser
from vtcav_ray.models.base import Description
from vtcav_ray.models.preprocess import Preprocessor
from vtcav_ray.models.shuffled import shuffle_weights


class Cnn(nn.Module):
    """A small 3D convolutional network, channels first."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(3, 6, 3, (1, 2, 2), 1), nn.BatchNorm3d(6), nn.ReLU())
        self.body = nn.Sequential(nn.Conv3d(6, 8, 3, 2, 1), nn.ReLU())
        self.late = nn.Sequential(nn.Conv3d(8, 8, 3, 1, 1), nn.Tanh())
        self.head = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x = self.late(self.body(self.stem(x)))
        return self.head((x * x.sigmoid()).mean((2, 3, 4)))


class CnnRecogniser(Recogniser):
    """The network with the interface of a recogniser."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """See `Recogniser`."""
        return self.module(x)


@pytest.fixture(scope="module")
def cnn() -> Recogniser:
    torch.manual_seed(0)
    pixels = Preprocessor((), None, (120.0, 110.0, 100.0), (60.0, 50.0, 55.0), swap_channels=False, sampling=None)
    aliases = {"early": "stem", "middle": "body", "late": "late"}
    description = Description("0" * 64, untrained=True, tag="UNTRAINED@0", class_names=None, sampling=None)
    return CnnRecogniser(Cnn(), ("a", "b", "c"), description, pixels, aliases, torch.device("cpu"))


@pytest.fixture(scope="module")
def swin() -> Recogniser:
    """The planted world's recogniser, with its weights."""
    return load_recogniser(ModelConfig(), "cpu")


def clip_of(frames: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (frames, size, size, 3), np.uint8)


def by_captum(recogniser: Recogniser, path: str, x: torch.Tensor, target: int, *, channels_last: bool) -> torch.Tensor:
    """Return Captum's map `[B, T', H', W']`. Captum needs channels first, so the layer's output is permuted for it."""
    from captum.attr import LayerGradCam  # takes a second to import

    stage, point = recogniser.module.get_submodule(path), nn.Identity()
    forth, back = ((0, 4, 1, 2, 3), (0, 2, 3, 4, 1)) if channels_last else ((0, 1, 2, 3, 4),) * 2
    own = stage.forward
    stage.forward = lambda *args, **options: point(own(*args, **options).permute(forth)).permute(back)  # type: ignore[method-assign]
    try:
        given = x.clone().requires_grad_()
        return LayerGradCam(recogniser.logits, point).attribute(given, target, relu_attributions=True)[:, 0].detach()
    finally:
        del stage.forward


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["early", "middle", "late"])
def test_maps_equal_captums_on_a_cnn(cnn: Recogniser, layer: str) -> None:
    model = GradCam(cnn, [layer], batch_size=2)
    x = model.prepare(clip_of(8, 32))
    plays = plays_of("window", 8, 4, 2)
    ours = model(x, plays, 1).maps[layer]
    theirs = by_captum(cnn, cnn.layer_aliases[layer], x[:, plays].transpose(0, 1), 1, channels_last=False)
    assert theirs.max() > 0
    torch.testing.assert_close(ours, theirs, atol=1e-4 * float(theirs.max()), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["early", "middle", "late"])
def test_maps_equal_captums_on_a_swin(swin: Recogniser, layer: str) -> None:
    model = GradCam(swin, [layer])
    x = model.prepare(clip_of(16, 64))
    ours = model(x, plays_of("clip", 16, 8, 4), 2)
    path = swin.layer_aliases[layer]
    with torch.no_grad():
        taken: list[torch.Tensor] = []
        handle = swin.module.get_submodule(path).register_forward_hook(lambda _, __, out: taken.append(out))
        swin.logits(x[None])
        handle.remove()
    width = ours.maps[layer].shape[1:]
    theirs = by_captum(swin, path, x[None], 2, channels_last=tuple(taken[0].shape[1:4]) == tuple(width))
    assert theirs.max() > 0
    torch.testing.assert_close(ours.maps[layer], theirs, atol=1e-4 * float(theirs.max()), rtol=1e-4)


def test_several_layers_at_once_equal_one_at_a_time(cnn: Recogniser) -> None:
    x = GradCam(cnn, ["early"]).prepare(clip_of(8, 32))
    plays = plays_of("clip", 8, 4, 2)
    together = GradCam(cnn, ["early", "middle", "late"])(x, plays, 0)
    for layer in ("early", "middle", "late"):
        torch.testing.assert_close(together.maps[layer], GradCam(cnn, [layer])(x, plays, 0).maps[layer])


def test_every_mode_shows_every_frame() -> None:
    assert plays_of("clip", 4, 2, 1) == [(0, 1, 2, 3)]
    assert plays_of("frame", 3, 2, 1) == [(0, 0, 0), (1, 1, 1), (2, 2, 2)]
    windows = plays_of("window", 7, 4, 2)
    assert windows == [(0, 1, 2, 3, 0, 1, 2), (2, 3, 4, 5, 2, 3, 4), (3, 4, 5, 6, 3, 4, 5)]
    assert {t for play in windows for t in play} == set(range(7))
    assert plays_of("window", 4, 9, 2) == plays_of("clip", 4, 1, 1)
    assert plays_of("window", 7, 4, 2, reverse=True)[0] == (2, 1, 0, 3, 2, 1, 0)
    assert plays_of("frame", 3, 1, 1) == plays_of("frame", 3, 1, 1, reverse=True)


def test_maps_are_laid_on_the_frames_that_were_shown() -> None:
    """A map that holds its frames' numbers comes out in the clip's order, reversed or not."""
    for mode, length in (("frame", 1), ("window", 4), ("clip", 8)):
        for reverse in (False, True):
            plays = plays_of(mode, 8, length, 2, reverse=reverse)  # type: ignore[arg-type]
            maps = torch.tensor(plays, dtype=torch.float32)[:, :, None, None].expand(-1, -1, 2, 2)
            np.testing.assert_allclose(assemble(maps, plays)[:, 0, 0].numpy(), np.arange(8), atol=1e-6)


def test_fewer_steps_than_frames_are_interpolated_with_their_mean_kept() -> None:
    steps = torch.rand(4, 3, 2)
    longer = in_time(steps, 8)
    assert longer.shape == (8, 3, 2)
    torch.testing.assert_close(longer.mean(0), steps.mean(0))
    torch.testing.assert_close(in_time(longer, 1)[0], steps.mean(0))


def test_a_mask_seen_by_a_layer_has_its_area_and_place() -> None:
    mask = torch.zeros(8, 16, 16)
    mask[:, :8, :8] = 1
    seen = seen_masks(mask, plays_of("clip", 8, 8, 8), (4, 2, 2))
    torch.testing.assert_close(seen[3], torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


def test_a_cnn_clip_is_examined_whole(cnn: Recogniser) -> None:
    """This covers every mode and layer, and properties that hold by construction."""
    shuffled = CnnRecogniser(Cnn(), cnn.class_names, cnn.description, cnn.preprocessor, cnn.layer_aliases, cnn.device)
    shuffled.module.load_state_dict(cnn.module.state_dict())
    before = [w.clone() for w in shuffled.module.parameters()]
    shuffle_weights(list(shuffled.module.modules()), 0)
    for old, new in zip(before, shuffled.module.parameters(), strict=True):
        torch.testing.assert_close(old.flatten().sort().values, new.flatten().sort().values)
    assert any(not torch.equal(old, new) for old, new in zip(before, shuffled.module.parameters(), strict=True))
    layers = ["early", "late"]
    boxes = [np.array([[t * 2.0, 8, t * 2.0 + 8, 16] for t in range(8)])]
    found = examine(
        GradCam(cnn, layers), GradCam(shuffled, layers), clip_of(8, 32), 1, boxes, MapSettings(("frame", "clip"), 4, 2)
    )
    assert set(found) == {(layer, mode) for layer in layers for mode in ("frame", "clip")}
    for (_, mode), one in found.items():
        assert one.shown.shape == (8, 32, 32)
        assert 0 <= one.figures["background_share"] <= 1
        assert one.figures["background_chance"] == pytest.approx(1 - 64 / 1024)
        assert one.figures["track_jump"] == pytest.approx(2 / 32, abs=0.03)
        assert one.figures["shuffled_weights_similarity"] < 1
        if mode == "frame":
            assert one.figures["direction"] == pytest.approx(1)
            assert one.figures["logit_change"] == 0
            assert one.figures["passes"] == 8
        else:
            assert one.figures["direction"] < 1
            assert one.figures["logit_change"] != 0
    none = examine(GradCam(cnn, layers), GradCam(shuffled, layers), clip_of(8, 32), 1, [], MapSettings(("clip",), 4, 2))
    assert np.isnan(none["late", "clip"].figures["background_share"])
    assert none["late", "clip"].aligned is None

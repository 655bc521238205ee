"""Responses: exact where the rest of the network is linear, and the plain loop's everywhere else."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.families import TRIALS, build
from tests.helpers.toy_networks import SIDE, ToyRecogniser
from vtcav_ray.activations import Extractor, intervene
from vtcav_ray.activations.projections import Projection, layer_and_projection, make_projection
from vtcav_ray.activations.targets import Target, target_values
from vtcav_ray.models import Recogniser, resolve_layer
from vtcav_ray.models.base import Views
from vtcav_ray.models.layers import find_forms
from vtcav_ray.patch.effect import patch_effects
from vtcav_ray.responses.passes import PatchSettings, Reference, equal_weights, responses
from vtcav_ray.tcav import concept_effect
from vtcav_ray.tcav.gains import at_gain, with_gains

THIN_TIMESFORMER = {"width": 96, "embed_dims": 96, "num_heads": 4, "num_transformer_layers": 6}

ALL = ("mean", "time", "space", "flat", "grid:2", "sketch:16", "moving", "still")


class LinearRest(nn.Module):
    """A front that is not linear, and after `front` only weights: a weighted sum over all places and channels."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Conv3d(3, 5, 3, padding=1), nn.GELU(), nn.Conv3d(5, 5, 1))
        self.places = nn.Parameter(torch.randn(4, SIDE, SIDE))
        self.head = nn.Linear(5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(20 * (self.front(x) * self.places).mean((2, 3, 4)))


class Peak(nn.Module):
    """The logit of class 0 is m exp(1 - m), with m the mean of the first channel's activation, in [0, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv3d(3, 1, 1, bias=False)
        self.front.weight.data = torch.tensor([4.0, 0.0, 0.0]).reshape(1, 3, 1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        m = self.front(x).mean((2, 3, 4))
        return torch.cat((m * torch.exp(1 - m), torch.zeros_like(m)), 1)


def toy_clips(count: int, seed: int, width: int = SIDE) -> list[np.ndarray]:
    """Noise of another brightness and colour in each clip, so that their means differ."""
    stream = np.random.RandomState(seed)
    noise = stream.randint(0, 256, (count, 4, SIDE, width, 3))
    return list((noise * stream.uniform(0, 1, (count, 1, 1, 1, 3))).astype(np.uint8))


def extracted(
    recogniser: Recogniser, layer: str, spec: str, clips: Sequence[np.ndarray], classes: Sequence[int], views: Views
) -> tuple[np.ndarray, np.ndarray]:
    """Return activations [B, d] and gradients [B, K, d], as a run stores them."""
    found = Extractor(recogniser, [layer], spec, sketch_seed=3, views=views).extract(
        clips, [list(classes)] * len(clips)
    )
    return found.activations[layer], found.gradients[layer].reshape(len(clips), len(classes), -1)


def reference_of(
    recogniser: Recogniser,
    layer: str,
    spec: str,
    clips: Sequence[np.ndarray],
    classes: Sequence[int],
    videos: Sequence[str] | None = None,
    views: Views = "center",
) -> Reference:
    weights = equal_weights(videos or [str(i) for i in range(len(clips))])
    return Reference(clips, weights, extracted(recogniser, layer, spec, clips, classes, views)[1])


def plain_responses(
    recogniser: Recogniser,
    layer: str,
    spec: str,
    vectors: np.ndarray,
    clips: Sequence[np.ndarray],
    weights: np.ndarray,
    classes: Sequence[int],
    target: Target = "logit",
    views: Views = "center",
) -> np.ndarray:
    """Run the whole model for every pool clip, reference clip and view: [U, K]."""
    name, own = layer_and_projection(layer, spec)
    path = resolve_layer(recogniser, name)
    projection: Projection | None = None
    out = np.zeros((len(vectors), len(classes)))
    for u, z in enumerate(vectors):
        for v, clip in enumerate(clips):
            x = recogniser.preprocess([clip], views)[0]
            form = find_forms(recogniser, [path], x[:1])[path]
            projection = projection or make_projection(own, form.shape, 3)

            def shift(a: torch.Tensor, p: Projection = projection, z: np.ndarray = z) -> torch.Tensor:
                here = p.at(a)
                moved = torch.from_numpy(z)[None].expand(len(a), -1) - here.apply(a)
                return here.transpose(here.solve(moved)).to(a)

            for k, index in enumerate(classes):
                logits = torch.from_numpy(_by_view(recogniser, clip, name, shift, views))
                values = target_values(logits, torch.full((len(logits),), index), target)
                out[u, k] += weights[v] * float(values.mean())
    return out


def _by_view(recogniser: Recogniser, clip: np.ndarray, name: str, shift: object, views: Views) -> np.ndarray:
    if views == "center":
        return intervene(recogniser, [clip], name, shift)  # type: ignore[arg-type]
    width = clip.shape[2]
    lefts = [left for _, left, _ in recogniser.preprocessor.crop.views(SIDE, width, center_only=False)]  # type: ignore[union-attr]
    crops = [clip[:, :, left : left + SIDE] for left in lefts]
    return np.concatenate([intervene(recogniser, [crop], name, shift) for crop in crops])  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", ALL)
def test_with_a_linear_rest_the_response_is_its_first_order(spec: str) -> None:
    torch.manual_seed(0)
    recogniser = ToyRecogniser.of(LinearRest())
    classes = [0, 2]
    reference = reference_of(recogniser, "front", spec, toy_clips(5, 1), classes, ["a", "a", "b", "c", "d"])
    z, _ = extracted(recogniser, "front", spec, toy_clips(6, 2), classes, "center")
    found = responses(recogniser, "front", z, reference, classes, PatchSettings(spec, 3, batch_size=2))
    assert not found.whole
    assert found.passes == 6 * 5
    real, predicted = (rows - rows[0] for rows in (found.response, found.first_order))
    assert np.abs(real[1:]).min() > 1e-4
    assert real == pytest.approx(predicted, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("spec", [spec for spec in ALL if not spec.startswith("sketch")])
def test_with_a_linear_rest_the_patch_effect_is_the_concept_effect_at_the_gain(spec: str) -> None:
    torch.manual_seed(0)
    recogniser = ToyRecogniser.of(LinearRest())
    clips = toy_clips(4, 1)
    reference = reference_of(recogniser, "front", spec, clips, [1])
    gains = Extractor(recogniser, ["front"], spec).extract(clips, [[1]] * 4).gains["front"]
    z, _ = extracted(recogniser, "front", spec, toy_clips(9, 2), [1], "center")
    found = responses(recogniser, "front", z, reference, [1], PatchSettings(spec))
    weighed, gain = with_gains(reference.gradients_VKd[:, 0], gains)
    effect = at_gain(concept_effect(weighed, z[:4], z[4:], tails="equal"), gain)
    patched = patch_effects(found.response[:4], found.response[4:])
    assert patched.effect[0] == pytest.approx(effect.effect, rel=1e-3)
    assert patched.null_sd[0] == pytest.approx(effect.null_sd, rel=1e-3)
    assert patched.z[0] == pytest.approx(effect.z, rel=1e-3)
    assert patched.p[0] == effect.p
    assert (len(set(gains.tolist())) > 1) == (spec in ("moving", "still"))


def test_where_the_own_clips_are_saturated_the_gradient_has_the_wrong_sign_and_the_patch_the_right_one() -> None:
    """Class 0's logit rises from 0 to its peak at m = 1, and falls slowly. Its own clips are beyond the peak."""
    recogniser = ToyRecogniser.of(Peak(), 2)

    def clips(means: Sequence[float]) -> list[np.ndarray]:
        return [np.full((4, SIDE, SIDE, 3), round(255 * m / 4), np.uint8) for m in means]

    own, others = clips([2.0, 2.1, 2.2]), clips([0.1, 0.2, 0.3])
    concept, random = clips([2.0, 1.9, 2.2, 2.1]), clips([0.0, 0.1, 0.05, 0.2])
    z, _ = extracted(recogniser, "front", "mean", concept + random, [0], "center")
    own_gradients = extracted(recogniser, "front", "mean", own, [0], "center")[1][:, 0]
    assert concept_effect(own_gradients, z[:4], z[4:]).effect < 0
    for reference_clips in (own, own + others):
        reference = reference_of(recogniser, "front", "mean", reference_clips, [0, 1])
        found = responses(recogniser, "front", z, reference, [0, 1], PatchSettings())
        # With one place of P for everything that f reads, the patched clip is the pool clip.
        m = 4 * np.array([round(255 * one / 4) / 255 for one in (2.0, 1.9, 2.2, 2.1, 0.0, 0.1, 0.05, 0.2)])
        assert found.response[:, 0] == pytest.approx(m * np.exp(1 - m), abs=1e-5)
        effect = patch_effects(found.response[:4], found.response[4:])
        assert effect.effect[0] > 0.4
        assert effect.effect[1] == 0
        assert np.isnan(effect.p[1])


@pytest.mark.parametrize("target", ["logit", "log_odds", "log_probability"])
@pytest.mark.parametrize("spec", ["mean", "still"])
def test_views_and_targets_are_those_of_the_plain_loop(spec: str, target: Target) -> None:
    torch.manual_seed(0)
    network = LinearRest()
    network.head = nn.Sequential(nn.Tanh(), nn.Linear(5, 4))  # type: ignore[assignment]
    recogniser = ToyRecogniser.of(network)
    clips, classes = toy_clips(3, 1, SIDE + 4), [3, 0]
    reference = dataclasses.replace(reference_of(recogniser, "front", spec, clips, classes, ["a", "a", "b"], "test"))
    z, _ = extracted(recogniser, "front", spec, toy_clips(2, 2, SIDE + 4), classes, "test")
    settings = PatchSettings(spec, 3, target, "test", batch_size=4)
    found = responses(recogniser, "front", z, reference, classes, settings)
    assert found.passes == 2 * 3 * 3
    expected = plain_responses(
        recogniser, "front", spec, z, clips, np.array([0.25, 0.25, 0.5]), classes, target, "test"
    )
    assert found.response == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["middle", "early@moving"])
def test_a_video_swin_responds_as_in_the_plain_loop(swin: Recogniser, layer: str) -> None:
    clips = list(np.random.RandomState(0).randint(0, 256, (5, 16, 64, 64, 3), np.uint8))
    classes = [2, 0]
    reference = reference_of(swin, layer, "mean", clips[:3], classes)
    z, _ = extracted(swin, layer, "mean", clips[3:], classes, "center")
    found = responses(swin, layer, z, reference, classes, PatchSettings("mean", 3, batch_size=2))
    expected = plain_responses(swin, layer, "mean", z, clips[:3], np.full(3, 1 / 3), classes)
    assert np.abs(expected[1] - expected[0]).max() > 1e-4
    assert found.response == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "thin"), [("TSN", {}), ("TimeSformer, divided", THIN_TIMESFORMER)])
def test_frames_in_the_batch_and_class_tokens_respond_as_in_the_plain_loop(
    family: str, thin: dict[str, int], tmp_path: Path
) -> None:
    trial = TRIALS[family]
    recogniser = build(trial, tmp_path, **thin)
    shape = (4, trial.frames, trial.size, trial.size, 3)
    clips = list(np.random.RandomState(0).randint(0, 256, shape, np.uint8))
    reference = reference_of(recogniser, "middle", "mean", clips[:2], [1, 5])
    z, _ = extracted(recogniser, "middle", "mean", clips[2:], [1, 5], "center")
    found = responses(recogniser, "middle", z, reference, [1, 5], PatchSettings("mean", 3))
    assert not found.whole
    expected = plain_responses(recogniser, "middle", "mean", z, clips[:2], np.full(2, 0.5), [1, 5])
    assert found.response == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    recogniser = ToyRecogniser.of(LinearRest())
    reference = Reference(toy_clips(2, 0), np.full(2, 0.5), np.zeros((2, 1, 5), np.float32))
    with pytest.raises(ValueError, match="finite"):
        responses(recogniser, "front", [[np.nan] * 5], reference, [0], PatchSettings())
    with pytest.raises(ValueError, match="at least one reference clip and one class"):
        responses(recogniser, "front", np.zeros((1, 5)), reference, [], PatchSettings())
    with pytest.raises(ValueError, match=r"gradients must be .* \(2, 1, 7\)"):
        responses(recogniser, "front", np.zeros((1, 7)), reference, [0], PatchSettings())
    wide = dataclasses.replace(reference, gradients_VKd=np.zeros((2, 1, 7), np.float32))
    with pytest.raises(ValueError, match="d = 7, and P of layer 'front' has d = 5"):
        responses(recogniser, "front", np.zeros((1, 7)), wide, [0], PatchSettings())
    uneven = dataclasses.replace(reference, weights_V=np.ones(3))
    with pytest.raises(ValueError, match="one per reference clip: 3, 2"):
        responses(recogniser, "front", np.zeros((1, 5)), uneven, [0], PatchSettings())


def test_each_source_video_has_the_same_weight() -> None:
    assert equal_weights(["b", "a", "b", "c"]).tolist() == pytest.approx([1 / 6, 1 / 3, 1 / 6, 1 / 3])

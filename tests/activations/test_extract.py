from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vtcav_ray.activations import Extractor, intervene, make_projection
from vtcav_ray.activations.targets import target_values
from vtcav_ray.errors import ConfigError
from vtcav_ray.models import Recogniser
from vtcav_ray.models.layers import find_forms, watched

LAYERS = ("early", "middle", "late", "head")


@pytest.fixture(scope="module")
def exact(swin: Recogniser) -> Recogniser:
    """The same model in float64, for finite differences."""
    return dataclasses.replace(swin, module=copy.deepcopy(swin.module).double())


def plain_gradients(recogniser: Recogniser, clip: np.ndarray, path: str, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute one layer's activation and gradient with a full graph; only the preprocessing is the package's."""
    x = recogniser.preprocess([clip])[0].requires_grad_()
    kept: list[torch.Tensor] = []
    handle = recogniser.module.get_submodule(path).register_forward_hook(lambda _, __, out: kept.append(out))
    logits = recogniser.logits(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[0, k], kept)
    return kept[0].detach(), gradient


@pytest.mark.parametrize(
    "layer", [pytest.param(name, marks=pytest.mark.slow if name in ("middle", "late") else ()) for name in LAYERS]
)
@pytest.mark.parametrize("spec", ["mean", "time", "space", "flat", "grid:2", "sketch:96"])
def test_the_identity_that_everything_rests_on(
    exact: Recogniser, clips: list[np.ndarray], spec: str, layer: str
) -> None:
    """d/dε h_k(a + ε Pᵀw) = (P∇h_k)·w."""
    extractor = Extractor(exact, [layer], spec, sketch_seed=5)
    k = 2
    stored = extractor.extract(clips[:1], [[k]]).gradients[layer][0].astype(np.float64)
    projection = make_projection(spec, extractor.shapes()[layer], seed=5)
    w = torch.randn(1, projection.d, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    w += torch.from_numpy(stored) / np.linalg.norm(stored)  # so that the derivative is well away from zero
    direction = projection.transpose(w)[0].numpy()
    step = 1e-3 / np.linalg.norm(direction)
    up, down = (intervene(exact, clips[:1], layer, sign * step * direction)[0, k] for sign in (1, -1))
    assert (up - down) / (2 * step) == pytest.approx(stored @ w.numpy()[0], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["moving", "still"])
def test_the_identity_holds_where_each_clip_has_a_map_of_its_own(
    exact: Recogniser, clips: list[np.ndarray], spec: str
) -> None:
    """d/dε h_k(a + ε P_xᵀw) = (P_x∇h_k)·w, with P_x the map at the clip's own activation a."""
    extractor = Extractor(exact, ["middle"], spec)
    found = extractor.extract(clips[:2], [[2], [2]])
    projection = make_projection(spec, extractor.shapes()["middle"])
    w = torch.randn(1, projection.d, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    w += torch.from_numpy(found.gradients["middle"].mean(0)) / np.linalg.norm(found.gradients["middle"].mean(0))
    up, down = (
        intervene(exact, clips[:2], "middle", lambda a, e=e: e * projection.at(a).transpose(w))[:, 2]
        for e in (1e-3, -1e-3)
    )
    expected = found.gradients["middle"].astype(np.float64) @ w.numpy()[0]
    np.testing.assert_allclose((up - down) / 2e-3, expected, rtol=1e-4)


@pytest.mark.slow
def test_one_pass_takes_a_layer_with_several_projections(swin: Recogniser, clips: list[np.ndarray]) -> None:
    layers = ["early@moving", "early", "late", "early@still", "late@grid:2"]
    together = Extractor(swin, layers, "mean").extract(clips[:3], [[0, 1], None, [2]])
    assert list(together.activations) == layers
    for word in layers:
        layer, _, spec = word.partition("@")
        alone = Extractor(swin, [layer], spec or "mean").extract(clips[:3], [[0, 1], None, [2]])
        np.testing.assert_array_equal(together.activations[word], alone.activations[layer])
        np.testing.assert_allclose(together.gradients[word], alone.gradients[layer], rtol=1e-4, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["logit", "log_odds", "log_probability"])
def test_gradients_of_each_target_by_finite_differences(
    exact: Recogniser, clips: list[np.ndarray], target: str
) -> None:
    extractor = Extractor(exact, ["middle"], "flat", target=target)  # type: ignore[arg-type]
    found = extractor.extract(clips[:1], [[1]])
    shape = extractor.shapes()["middle"]
    w = np.random.RandomState(0).randn(*shape)

    def value(shift: np.ndarray) -> float:
        logits = torch.from_numpy(intervene(exact, clips[:1], "middle", shift))
        return target_values(logits, torch.tensor([1]), target)[0].item()  # type: ignore[arg-type]

    assert found.gradient_values[0] == pytest.approx(value(0 * w), rel=1e-5)
    slope = (value(1e-5 * w) - value(-1e-5 * w)) / 2e-5
    assert slope == pytest.approx(found.gradients["middle"][0] @ w.reshape(-1), rel=1e-4)


def test_targets_are_what_they_are_called() -> None:
    logits = torch.tensor([[1.0, 2.0, -1.0]], dtype=torch.float64)
    p = torch.softmax(logits, 1)[0, 1].item()
    index = torch.tensor([1])
    assert target_values(logits, index, "logit").item() == 2.0
    assert target_values(logits, index, "log_probability").item() == pytest.approx(np.log(p))
    assert target_values(logits, index, "log_odds").item() == pytest.approx(np.log(p / (1 - p)))


@pytest.mark.slow
def test_all_layers_and_classes_equal_one_graph_each(swin: Recogniser, clips: list[np.ndarray]) -> None:
    asked: Sequence[Sequence[int] | None] = [[3], [0, 2], None, [1]]
    found = Extractor(swin, LAYERS, "mean", batch_size=2).extract(clips[:4], asked)
    pairs = [(0, 3), (1, 0), (1, 2), (3, 1)]
    assert list(zip(found.gradient_clips.tolist(), found.gradient_classes.tolist(), strict=True)) == pairs
    for layer in ("early", "late"):
        path = swin.layer_aliases[layer]
        for row, (clip, k) in enumerate(pairs):
            a, g = plain_gradients(swin, clips[clip], path, k)
            # Swin's stages are channels-last themselves
            np.testing.assert_allclose(found.activations[layer][clip], a[0].mean((0, 1, 2)), atol=2e-5)
            mean = g[0].mean((0, 1, 2)).numpy()
            np.testing.assert_allclose(found.gradients[layer][row], mean, atol=1e-5 * np.abs(mean).max())


def test_top_classes_are_added_and_not_done_twice(swin: Recogniser, clips: list[np.ndarray]) -> None:
    extractor = Extractor(swin, ["late"])
    found = extractor.extract(clips[:3], [[], [0], None], top=2)
    best = np.argsort(-found.logits, axis=1)[:, :2]
    assert found.predicted.tolist() == best[:, 0].tolist()
    assert found.gradient_classes[found.gradient_clips == 0].tolist() == best[0].tolist()
    second = found.gradient_classes[found.gradient_clips == 1].tolist()
    assert second == list(dict.fromkeys([0, *best[1].tolist()]))
    assert 2 not in found.gradient_clips


@pytest.mark.slow
def test_one_forward_pass_a_clip_and_no_graph_before_the_first_layer(
    swin: Recogniser, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = Extractor(swin, ["middle", "head"], batch_size=2)
    extractor.extract(clips[:2], None)  # this call determines the layers' forms
    seen: list[tuple[int, bool, bool]] = []

    def see(_: nn.Module, __: object, out: torch.Tensor) -> None:
        seen.append((out.shape[0], out.requires_grad, torch.is_grad_enabled()))

    handles = [swin.module.get_submodule(f"backbone.layers.{i}").register_forward_hook(see) for i in (1, 3)]
    extractor.extract(clips[:5], [[0, 1, 2], [1], None, [2, 3], None])
    for handle in handles:
        handle.remove()
    # layers.1 comes before the earliest requested layer, layers.3 after it; clips without classes have no graph
    assert seen == [
        (2, False, True), (2, True, True), (1, False, True), (1, True, True), (2, False, False), (2, False, False),
    ]  # fmt: skip
    assert all(p.grad is None and not p.requires_grad for p in swin.module.parameters())


@pytest.mark.slow
def test_results_do_not_depend_on_the_batch(swin: Recogniser, clips: list[np.ndarray]) -> None:
    asked = [[0], [1], None, [2, 0], [3]]
    whole = Extractor(swin, LAYERS, "sketch:64", batch_size=5).extract(clips, asked)
    for i, clip in enumerate(clips):
        one = Extractor(swin, LAYERS, "sketch:64", batch_size=1).extract([clip], [asked[i]])
        for layer in LAYERS:
            scale = np.abs(whole.activations[layer]).max()
            np.testing.assert_allclose(one.activations[layer][0], whole.activations[layer][i], atol=1e-5 * scale)
            rows = whole.gradient_clips == i
            scale = np.abs(whole.gradients[layer]).max()
            np.testing.assert_allclose(one.gradients[layer], whole.gradients[layer][rows], atol=1e-5 * scale)
    again = Extractor(swin, LAYERS, "sketch:64", batch_size=5).extract(clips, asked)
    for layer in LAYERS:
        assert np.array_equal(again.activations[layer], whole.activations[layer])
        assert np.array_equal(again.gradients[layer], whole.gradients[layer])


@pytest.mark.slow
def test_views_are_averaged(swin: Recogniser, clips: list[np.ndarray]) -> None:
    three = dataclasses.replace(swin.preprocessor.crop, kind="three")  # type: ignore[type-var]
    recogniser = dataclasses.replace(swin, preprocessor=dataclasses.replace(swin.preprocessor, crop=three))
    wide = clips[3]  # 64 x 90: crops at 0, 26 and 13
    found = Extractor(recogniser, ["late"], views="test").extract([wide], [[1]])
    crops = [np.ascontiguousarray(wide[:, :, left : left + 64]) for left in (0, 26, 13)]
    single = Extractor(swin, ["late"]).extract(crops, [[1]] * 3)
    assert found.views == 3
    np.testing.assert_allclose(found.activations["late"][0], single.activations["late"].mean(0), atol=2e-6)
    expected = single.gradients["late"].mean(0)
    np.testing.assert_allclose(found.gradients["late"][0], expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(found.logits[0], single.logits.mean(0), atol=1e-6)


def test_non_finite_is_reported_by_clip_and_layer_and_spoils_no_other(
    swin: Recogniser, clips: list[np.ndarray]
) -> None:
    clean = Extractor(swin, ["early", "late"]).extract(clips[:3], [[0]] * 3)

    def spoil(_: nn.Module, __: object, out: torch.Tensor) -> torch.Tensor:
        out = out.clone()
        out[1:2, 0, 0, 0, 0] = torch.inf
        return out

    handle = swin.module.get_submodule("backbone.layers.2").register_forward_hook(spoil)
    found = Extractor(swin, ["early", "late"]).extract(clips[:3], [[0]] * 3)
    handle.remove()
    assert found.bad_clips == {1}
    reported = {(item.layer, item.what) for item in found.non_finite}
    assert ("late", "activation") in reported
    assert ("early", "gradient") in reported
    assert "late" in next(item.message for item in found.non_finite if item.layer == "late")
    for i in (0, 2):
        np.testing.assert_allclose(found.gradients["early"][i], clean.gradients["early"][i], atol=1e-8)


def test_intervention_of_nothing_changes_nothing(swin: Recogniser, clips: list[np.ndarray]) -> None:
    plain = Extractor(swin, ["late"]).extract(clips[:2], None)
    shape = (8, 2, 2, 256)
    np.testing.assert_allclose(intervene(swin, clips[:2], "late", np.zeros(shape, np.float32)), plain.logits, atol=1e-6)
    moved = intervene(swin, clips[:2], "late", np.ones((2, *shape), np.float32) * np.arange(256, dtype=np.float32))
    assert np.abs(moved - plain.logits).max() > 1e-3
    with pytest.raises(ConfigError, match="8, 2, 2, 256"):
        intervene(swin, clips[:2], "late", np.zeros((8, 2, 2, 4), np.float32))


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "bound"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_half_precision_error(swin: Recogniser, clips: list[np.ndarray], precision: str, bound: float) -> None:
    """Relative errors of vectors and of the gradients' directions stay small; docs/models.md has measured figures."""
    full = Extractor(swin, LAYERS).extract(clips[:3], [[0], [1], [2]])
    half = Extractor(swin, LAYERS, precision=precision).extract(clips[:3], [[0], [1], [2]])  # type: ignore[arg-type]
    for layer in LAYERS:
        for exact_, rough in ((full.activations, half.activations), (full.gradients, half.gradients)):
            assert rough[layer].dtype == np.float32
            error = np.linalg.norm(rough[layer] - exact_[layer]) / np.linalg.norm(exact_[layer])
            assert 0 < error < bound, (layer, error)


def test_a_later_module_that_works_in_place_does_not_spoil_the_layer(swin: Recogniser, clips: list[np.ndarray]) -> None:
    class Doubling(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mul_(2)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv3d(3, 4, 1)
            self.second = Doubling()
            self.last = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.second(self.first(x)).mean((2, 3, 4)))

    class Own(Recogniser):
        def logits(self, x: torch.Tensor) -> torch.Tensor:
            return self.module(x)

    torch.manual_seed(0)
    own = Own(Network(), ("a", "b", "c", "d"), swin.description, swin.preprocessor, {}, torch.device("cpu"))
    found = Extractor(own, ["first"], "mean").extract(clips[:1], [[1]])
    x = own.preprocess(clips[:1])[0]
    network = own.module
    assert isinstance(network, Network)
    np.testing.assert_allclose(found.activations["first"][0], network.first(x).mean((2, 3, 4))[0], rtol=1e-5)
    expected = 2 * network.last.weight[1] / x[0, 0].numel()
    np.testing.assert_allclose(found.gradients["first"][0], expected, rtol=1e-5)


@pytest.mark.slow
def test_batches_that_do_not_fit_are_halved(
    swin: Recogniser, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [[0], [1], [2], None, [3]]
    expected = Extractor(swin, ["late"], batch_size=1).extract(clips, asked)
    extractor = Extractor(swin, ["late"], batch_size=4)
    run, sizes = extractor._run, []

    def small_gpu(x: torch.Tensor, *rest: Any) -> Any:
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("too much")
        return run(x, *rest)

    monkeypatch.setattr(extractor, "_run", small_gpu)
    found = extractor.extract(clips, asked)
    assert sizes == [4, 2, 2, 1]
    assert found.gradient_clips.tolist() == [0, 1, 2, 4]
    np.testing.assert_allclose(found.activations["late"], expected.activations["late"], atol=1e-5)
    extractor.extract(clips, asked)
    assert max(sizes[4:]) == 2  # a size that did not fit is not tried again

    def no_gpu(*_: object) -> None:
        raise torch.OutOfMemoryError("none at all")

    monkeypatch.setattr(extractor, "_run", no_gpu)
    with pytest.raises(torch.OutOfMemoryError):
        extractor.extract(clips[:1], [[0]])


def test_unknown_layer(swin: Recogniser) -> None:
    with pytest.raises(ConfigError, match=r"midle.*Nearest: middle"):
        Extractor(swin, ["midle"])


def test_watch_and_form_agree_on_a_layer_s_input(swin: Recogniser, clips: list[np.ndarray]) -> None:
    x = swin.preprocess(clips[:1])[0]
    form = find_forms(swin, ["cls_head.fc_cls:in", "backbone.norm3:in"], x)
    assert form["cls_head.fc_cls:in"].shape == (1, 1, 1, 256)
    kept: list[torch.Tensor] = []

    def see(raw: torch.Tensor) -> None:
        kept.append(raw)

    with (
        torch.no_grad(),
        watched(swin.module, "backbone.norm3:in", see),
        watched(swin.module, "backbone.layers.3", see),
    ):
        swin.logits(x)
    assert torch.equal(kept[0], kept[1])


def test_each_clip_has_its_gain_and_each_gradient_its_class_s_margin(swin: Recogniser, clips: list[np.ndarray]) -> None:
    extractor = Extractor(swin, ["early", "early@moving"], "mean", batch_size=1)
    found = extractor.extract(clips[:2], [[0, 2], [1]])
    t, h, w, _ = extractor.shapes()["early"]
    assert found.gains["early"].tolist() == [t * h * w] * 2
    one, other = found.gains["early@moving"]
    assert one != other
    assert t <= min(one, other) <= max(one, other) <= t * h * w
    for row, (clip, k) in enumerate([(0, 0), (0, 2), (1, 1)]):
        logits = found.logits[clip]
        assert found.gradient_margins[row] == pytest.approx(logits[k] - np.delete(logits, k).max())
        assert (found.gradient_margins[row] > 0) == (found.predicted[clip] == k)

"""Erasing directions, curves, and shuffling what runs after a layer, on small networks with known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.recognisers import untrained_swin
from vtcav_ray.faithful.curves import deletion, insertion
from vtcav_ray.faithful.erase import ErasedNetwork, orthonormal
from vtcav_ray.models.base import Recogniser
from vtcav_ray.models.layers import find_forms, watched
from vtcav_ray.models.shuffled import layers_not_after, modules_after, shuffle_weights


@pytest.fixture
def recogniser() -> Recogniser:
    return untrained_swin()


@pytest.fixture
def clips() -> list[np.ndarray]:
    stream = np.random.default_rng(0)
    return [stream.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8) for _ in range(3)]


def seen(recogniser: Recogniser, path: str, x: torch.Tensor) -> torch.Tensor:
    found: list[torch.Tensor] = []

    def see(raw: torch.Tensor) -> None:
        found.append(raw.clone())

    with torch.no_grad(), watched(recogniser.module, path, see):
        recogniser.logits(x)
    return found[0]


def test_a_basis_is_orthonormal_and_drops_what_it_contains() -> None:
    stream = np.random.default_rng(0)
    two = stream.normal(size=(2, 1, 6)).astype(np.float32)
    three = np.concatenate((two, two[:1] * 2 - two[1:]))
    basis_SCk = orthonormal(three)
    assert basis_SCk.shape == (1, 6, 2)
    np.testing.assert_allclose(basis_SCk[0].T @ basis_SCk[0], np.eye(2), atol=1e-6)
    left = two[:, 0] - two[:, 0] @ basis_SCk[0] @ basis_SCk[0].T
    np.testing.assert_allclose(left, 0, atol=1e-5)


@pytest.mark.slow
def test_what_is_erased_becomes_that_of_the_base(recogniser: Recogniser, clips: list[np.ndarray]) -> None:
    """The network after the layer sees an activation whose part along the direction is the base's, and no other."""
    path = recogniser.layer_aliases["early"]
    network = ErasedNetwork(recogniser, path, clips, "center")
    stream = np.random.default_rng(1)
    direction = stream.normal(size=(1, 1, network.channels)).astype(np.float32)
    base = stream.normal(size=(1, network.channels)).astype(np.float32)
    basis = orthonormal(direction)
    x = recogniser.preprocess(clips, "center").flatten(0, 1)
    form = find_forms(recogniser, [path], x[:1])[path]
    raw = seen(recogniser, path, x)
    a = form.present(raw).numpy()
    unit = basis[0, :, 0]
    wanted = a - ((a - base[0]) @ unit)[..., None] * unit
    np.testing.assert_allclose((wanted - base[0]) @ unit, 0, atol=1e-4)

    def replace(tensor: torch.Tensor) -> torch.Tensor:
        return form.restore(torch.from_numpy(wanted), tensor)

    with torch.no_grad(), watched(recogniser.module, path, replace):
        logits = recogniser.logits(x)
    np.testing.assert_allclose(network.erased(basis, base), logits.numpy(), atol=1e-4)
    assert np.abs(network.erased(basis, base) - network.plain).max() > 1e-4


def test_areas_of_curves_by_hand() -> None:
    """K = 3: changes after 1, 2 and 3 erased concepts."""
    in_order, opposite = np.array([[-3.0, -4.0, -5.0]]), np.array([[-0.5, -1.0, -5.0]])
    assert deletion(in_order) == pytest.approx([4.0])
    # With the first one left in, two of the opposite order are erased: -1; with two: -0.5; with all: 0. None left: -5.
    assert insertion(opposite) == pytest.approx([np.mean([-1 + 5, -0.5 + 5, 0 + 5])])


@pytest.mark.slow
def test_shuffling_after_a_layer_keeps_its_activation_and_changes_the_logits(
    recogniser: Recogniser, clips: list[np.ndarray]
) -> None:
    path = recogniser.layer_aliases["early"]
    x = recogniser.preprocess(clips, "center").flatten(0, 1)
    before, logits = seen(recogniser, path, x), recogniser.logits(x).detach()
    after = modules_after(recogniser, path, x[:1])
    assert after
    assert recogniser.module.get_submodule(path) not in after
    shuffle_weights(after, 0)
    assert torch.equal(seen(recogniser, path, x), before)
    assert not torch.allclose(recogniser.logits(x), logits)


@pytest.mark.slow
def test_the_layers_that_a_shuffled_top_keeps(recogniser: Recogniser, clips: list[np.ndarray]) -> None:
    aliases = recogniser.layer_aliases
    x = recogniser.preprocess(clips[:1], "center").flatten(0, 1)
    paths = [aliases["late"], aliases["early"]]
    assert layers_not_after(recogniser, aliases["early"], paths, x) == [aliases["early"]]
    assert layers_not_after(recogniser, aliases["late"], paths, x) == [aliases["early"], aliases["late"]]


def test_shuffling_permutes_the_numbers_of_each_tensor_once() -> None:
    shared = nn.Linear(4, 4, bias=False)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    before = shared.weight.detach().clone()
    shuffle_weights(list(model.modules()), 0)
    assert sorted(shared.weight.flatten().tolist()) == sorted(before.flatten().tolist())
    assert not torch.equal(shared.weight, before)

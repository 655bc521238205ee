"""Directions, maps and measures on activations whose places are known by construction."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.toy_networks import SIDE, ToyRecogniser
from vtcav_ray.errors import InputError
from vtcav_ray.maps.examine import Examined, examine, inside, pointing, timing
from vtcav_ray.maps.inner import OTHERS, LayerActivations, deletions, inner_products, places_of
from vtcav_ray.tcav.directions import Directions, directions, on_channels

FRAMES = 8
RED = Directions(
    concept_d=np.array([1, 0, 0], np.float32),
    random_Rd=np.array([[0, 1, 0], [0, -1, 0]], np.float32),
    base_d=np.zeros(3, np.float32),
)


class Local(nn.Module):
    """A network whose layer keeps every place: `[B, 3, T, h, w]`, then the mean over places and times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv3d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(3).view(3, 3, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).mean((2, 3, 4))


class Mixed(Local):
    """The same network with mixed places: the layer sees every place where another is, so its maps point elsewhere."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        order = torch.randperm(x[0, 0].numel(), generator=torch.Generator().manual_seed(0))
        return super().forward(x.flatten(2)[:, :, order].view_as(x))


def red_square() -> tuple[torch.Tensor, np.ndarray]:
    """Make an input with a red square of 2 x 2 pixels that moves to the right, and its boxes `[T, 4]`."""
    x = torch.rand(3, FRAMES, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) / 10
    boxes = np.empty((FRAMES, 4))
    for t in range(FRAMES):
        left = t // 2
        x[0, t, 2:4, left : left + 2] += 1
        boxes[t] = (left, 2, left + 2, 4)
    return x, boxes


def examined(network: nn.Module, x: torch.Tensor, boxes: np.ndarray | None, given: Directions = RED) -> Examined:
    activations = LayerActivations(ToyRecogniser.of(network, 3), ["layer"])
    return examine(x, activations(x[None])["layer"][0], given, boxes, lambda inputs: activations(inputs)["layer"], 0)


def test_a_direction_is_the_difference_of_means_over_videos() -> None:
    own = np.array([[4, 0], [0, 0], [2, 2]], np.float32)  # two clips of one video, one of another
    other = np.array([[0, 0], [0, 1], [0, 4], [0, 9]], np.float32)
    found = directions(own, ["a", "a", "b"], other, ["c", "d", "e", "f"], count=8, seed=0)
    np.testing.assert_allclose(found.base_d, [0, 3.5])
    np.testing.assert_allclose(found.concept_d, np.array([2, -2.5]) / np.sqrt(10.25), rtol=1e-6)
    np.testing.assert_allclose(np.abs(found.random_Rd), np.tile([0, 1], (8, 1)))  # the other side has only this axis
    again = directions(own, ["a", "a", "b"], other, ["c", "d", "e", "f"], count=8, seed=0)
    np.testing.assert_array_equal(found.random_Rd, again.random_Rd)


def test_sides_without_a_direction_are_refused() -> None:
    one = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="single source video"):
        directions(one, ["a", "b"], one, ["c", "c"], count=2, seed=0)
    with pytest.raises(ValueError, match="equal means"):
        directions(one, ["a", "b"], one, ["c", "d"], count=2, seed=0)


@pytest.mark.parametrize("steps", [1, 4])
def test_the_mean_of_a_map_is_the_clips_inner_product(steps: int) -> None:
    """For `mean` (one direction) and for `time` (one for each step)."""
    stream = np.random.RandomState(0)
    a = torch.from_numpy(stream.randn(2, 4, 3, 3, 5).astype(np.float32))
    vector, base = stream.randn(2, steps * 5).astype(np.float32)
    found = inner_products(a, on_channels(vector[None], 5), on_channels(base[None], 5)[0])[:, 0]
    z = (a.mean((1, 2, 3)) if steps == 1 else a.mean((2, 3)).flatten(1)).numpy()
    np.testing.assert_allclose(found.mean((1, 2, 3)), (z - base) @ vector / steps, rtol=1e-4)


def test_a_map_of_a_layer_that_keeps_places_is_localised_and_points_to_the_object() -> None:
    x, boxes = red_square()
    one = examined(Local(), x, boxes)
    np.testing.assert_allclose(one.concept, x[0], atol=1e-6)
    assert one.figures["pointing"] == 1
    assert one.figures["pointing_random"] < 0.6
    assert one.figures["inside"] > 2 > one.figures["inside_random"]
    assert one.figures["deletion"] == 1
    np.testing.assert_allclose(one.timeline, x[0].mean((1, 2)), rtol=1e-5)


def test_mixed_places_are_not_localised() -> None:
    x, boxes = red_square()
    one = examined(Mixed(), x, boxes)
    assert one.figures["presence"] == pytest.approx(examined(Local(), x, boxes).figures["presence"], rel=1e-5)
    assert one.figures["deletion"] < 0.9
    assert one.figures["pointing"] < 0.7


def test_a_clip_without_the_concept_is_not_measured() -> None:
    x, boxes = red_square()
    base = np.array([1, 0, 0], np.float32)
    one = examined(Local(), x, boxes, Directions(RED.concept_d, RED.random_Rd, base))
    assert one.figures.pop("presence") < 0
    assert all(np.isnan(value) for value in one.figures.values())


def test_a_clip_without_an_object_is_only_tested_by_deletion() -> None:
    figures = examined(Local(), red_square()[0], None).figures
    assert figures["deletion"] == 1
    assert np.isnan(figures["pointing"])
    assert np.isnan(figures["timing"])


def test_deletions_have_the_same_size_and_differ_in_place() -> None:
    x, _ = red_square()
    gone = deletions(x + 1, x[0].numpy(), 0) == 0
    assert gone.shape == (1 + OTHERS, 3, FRAMES, SIDE, SIDE)
    assert {int(one.sum()) for one in gone} == {3 * round(0.1 * x[0].numel())}
    np.testing.assert_array_equal(gone[0, 0], places_of(x[0].numpy()))
    assert (gone[1:] != gone[:1]).flatten(1).any(1).all()


def test_an_infinite_activation_is_an_input_error() -> None:
    x, _ = red_square()
    x[0, 0, 0, 0] = float("inf")
    with pytest.raises(InputError, match="layer `layer`"):
        examined(Local(), x, None)


def test_measures_against_the_box() -> None:
    covered = np.zeros((4, 3, 3), np.float32)
    covered[:2, 0, 0] = 0.1  # a place that the box only touches, and two steps without a box
    values = np.zeros((4, 3, 3), np.float32)
    values[0, 0, 0] = values[1, 2, 2] = 1
    assert pointing(values, covered) == 0.5
    assert np.isnan(pointing(values, np.zeros_like(covered)))
    assert np.isnan(inside(np.ones_like(values), covered))
    assert inside(values, covered) > 1
    speed = np.array([1.0, 2.0, 3.0, np.nan])
    line = partial(np.full, (3, 3), dtype=np.float32)
    assert timing(np.stack([line(v) for v in (2, 4, 6, 0)]), speed) == pytest.approx(1)
    assert timing(np.stack([line(v) for v in (6, 4, 2, 9)]), speed) == pytest.approx(-1)
    assert np.isnan(timing(np.ones((4, 3, 3), np.float32), speed))

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vtcav_ray.activations import make_projection
from vtcav_ray.activations.projections import layer_and_projection
from vtcav_ray.errors import ConfigError

SHAPE = (4, 3, 5, 6)
ALL = ("mean", "time", "space", "flat", "grid:2", "grid:4", "sketch:7", "sketch:64")


def activation(batch: int = 3, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(batch, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "formula", "d"),
    [("mean", "btijc->bc", 6), ("time", "btijc->btc", 24), ("space", "btijc->bijc", 90), ("flat", "btijc->btijc", 360)],
)
def test_means_are_the_means_of_the_design(spec: str, formula: str, d: int) -> None:
    a = activation()
    projection = make_projection(spec, SHAPE)
    expected = torch.einsum(formula, a).reshape(3, -1) / (360 / d)
    assert projection.d == d
    torch.testing.assert_close(projection.apply(a), expected)


def test_a_grid_has_the_means_of_its_blocks_and_lies_between_mean_and_space() -> None:
    a = activation()
    found = make_projection("grid:2", SHAPE).apply(a).reshape(3, 2, 2, 6)
    for i, rows in enumerate((slice(0, 1), slice(1, 3))):  # sides of 3 and 5: blocks of 1 and 2, and of 2 and 3
        for j, columns in enumerate((slice(0, 2), slice(2, 5))):
            torch.testing.assert_close(found[:, i, j], a[:, :, rows, columns].mean((1, 2, 3)))
    torch.testing.assert_close(make_projection("grid:1", SHAPE).apply(a), make_projection("mean", SHAPE).apply(a))
    torch.testing.assert_close(make_projection("grid:5", SHAPE).apply(a), make_projection("space", SHAPE).apply(a))
    assert make_projection("grid:4", SHAPE).d == 3 * 4 * 6, "a side of three places has three blocks"


@pytest.mark.parametrize("spec", ALL)
def test_transpose_is_the_adjoint(spec: str) -> None:
    projection = make_projection(spec, SHAPE, seed=3)
    a, w = activation(), torch.randn(3, projection.d, dtype=torch.float64)
    left = (projection.apply(a) * w).sum()
    right = (a * projection.transpose(w)).sum()
    assert left.item() == pytest.approx(right.item(), rel=1e-12)


@pytest.mark.parametrize("spec", ALL)
def test_the_lift_moves_the_vector_by_just_what_was_asked_and_is_the_smallest(spec: str) -> None:
    projection = make_projection(spec, SHAPE, seed=3)
    z = torch.randn(2, projection.d, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    lift = projection.transpose(projection.solve(z))
    torch.testing.assert_close(projection.apply(lift), z, rtol=1e-6, atol=1e-6)
    # Any other change of the activation that P maps to z differs from it by something that P maps to 0.
    other = activation(2)
    unseen = other - projection.transpose(projection.solve(projection.apply(other)))
    assert (lift * unseen).sum().item() == pytest.approx(0.0, abs=1e-5)


def test_the_lift_of_a_mean_moves_every_position_alike() -> None:
    projection = make_projection("mean", SHAPE)
    z = torch.arange(6, dtype=torch.float64)[None]
    assert torch.allclose(projection.transpose(projection.solve(z)), z.reshape(1, 1, 1, 1, 6).expand(1, *SHAPE))


def test_time_tells_a_clip_from_its_reverse_and_mean_does_not() -> None:
    a = activation()
    for spec, same in (("mean", True), ("time", False)):
        projection = make_projection(spec, SHAPE)
        assert torch.allclose(projection.apply(a), projection.apply(a.flip(1))) is same


@pytest.mark.slow
def test_sketch_keeps_inner_products_within_the_stated_variance() -> None:
    x, y = activation(1), activation(2)[1:]
    exact = (x * y).sum().item()
    k, seeds = 16, 600
    found = []
    for seed in range(seeds):
        projection = make_projection(f"sketch:{k}", SHAPE, seed)
        found.append((projection.apply(x) * projection.apply(y)).sum().item())
    bound = ((x**2).sum() * (y**2).sum() + exact**2).item() / k
    assert np.mean(found) == pytest.approx(exact, abs=5 * math.sqrt(bound / seeds))
    assert 0.5 * bound < np.var(found) < 1.2 * bound


@pytest.mark.slow
def test_sketch_of_a_vector_with_one_entry_keeps_its_length_often() -> None:
    """Several rounds send one entry to up to four rows, which rarely cancel."""
    one = torch.zeros(1, *SHAPE, dtype=torch.float64)
    one[0, 1, 2, 3, 4] = 1.0
    lengths = [make_projection("sketch:64", SHAPE, seed).apply(one).norm().item() for seed in range(200)]
    assert np.mean(np.isclose(lengths, 1.0)) > 0.8
    assert min(lengths) > 0.0 or np.mean(np.array(lengths) == 0) < 0.02


def test_sketch_is_the_same_for_every_batch_and_run() -> None:
    a = activation(5)
    projection = make_projection("sketch:32", SHAPE, seed=9)
    whole = projection.apply(a)
    torch.testing.assert_close(torch.cat([projection.apply(row[None]) for row in a]), whole, rtol=0, atol=1e-12)
    again = make_projection("sketch:32", SHAPE, seed=9)
    assert torch.equal(again.apply(a), whole)
    assert not torch.allclose(make_projection("sketch:32", SHAPE, seed=10).apply(a), whole)
    # The stream is frozen: stored sketches of old runs must stay comparable with those of new ones.
    ones = make_projection("sketch:4", (1, 2, 2, 3), seed=0).apply(torch.arange(12.0).reshape(1, 1, 2, 2, 3))
    assert ones.tolist() == [[0.5, -15.5, -2.0, -1.0]]


def test_sketch_longer_than_the_activation_is_the_activation() -> None:
    a = activation()
    assert torch.equal(make_projection("sketch:1000", SHAPE).apply(a), a.reshape(3, -1))


def moving_spot(level: float = 0.2) -> torch.Tensor:
    """Make two noisy clips with a flickering spot, at (0, 1) in the first and at (2, 4) in the second."""
    a = level * activation(2)[:, :1].expand(2, *SHAPE).clone()
    for clip, (row, column) in enumerate(((0, 1), (2, 4))):
        a[clip, :, row, column] += torch.tensor([1.0, -1.0, 2.0, 0.5], dtype=torch.float64)[:, None]
    return a


def test_moving_and_still_look_where_each_clip_moves_and_where_it_does_not() -> None:
    a = moving_spot()
    moving, still = (make_projection(spec, SHAPE).apply(a) for spec in ("moving", "still"))
    spots = torch.stack((a[0, :, 0, 1].mean(0), a[1, :, 2, 4].mean(0)))
    torch.testing.assert_close(moving, spots)
    everywhere = a.mean((1, 2, 3)) * 15  # 3 x 5 places, of which one moves
    torch.testing.assert_close(still, (everywhere - spots) / 14)
    # The same spot at another place is the same for `moving`, but not for `space`.
    moved = moving_spot(0.0)
    assert torch.allclose(*make_projection("moving", SHAPE).apply(moved))
    assert not torch.allclose(*make_projection("space", SHAPE).apply(moved))


@pytest.mark.parametrize("spec", ["moving", "still"])
def test_weights_of_places_are_shares_and_follow_the_stated_powers(spec: str) -> None:
    a = activation()
    activity = a.std(1, correction=0).mean(-1)
    relative = activity / activity.amax((1, 2), keepdim=True)
    weights = (relative if spec == "moving" else 1 - relative) ** 8
    weights /= weights.sum((1, 2), keepdim=True)
    expected = torch.einsum("bthwc,bhw->bc", a, weights) / SHAPE[0]
    torch.testing.assert_close(make_projection(spec, SHAPE).apply(a), expected)
    # A larger clip of the same kind has the same places.
    torch.testing.assert_close(make_projection(spec, SHAPE).apply(1000 * a), 1000 * expected)


@pytest.mark.parametrize("spec", ["moving", "still"])
def test_where_nothing_moves_or_there_are_no_places_all_count_alike(spec: str) -> None:
    still = activation()[:, :1].expand(3, *SHAPE)
    one_time, one_place = activation(3, (1, 3, 5, 6)), activation(3, (4, 1, 1, 6))
    for a in (still, still + 1e-9 * activation(), torch.zeros(3, *SHAPE), one_time, one_place):
        shape = tuple(a.shape[1:])
        torch.testing.assert_close(make_projection(spec, shape).apply(a), a.mean((1, 2, 3)))  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", ["moving", "still"])
def test_at_clips_it_is_a_linear_map_with_an_adjoint_and_a_smallest_lift(spec: str) -> None:
    projection = make_projection(spec, SHAPE)
    assert not projection.fixed
    here = projection.at(activation())
    g, w = torch.randn(3, *SHAPE, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    torch.testing.assert_close(here.apply(2 * g + activation()), 2 * here.apply(g) + here.apply(activation()))
    left, right = (here.apply(g) * w).sum(), (g * here.transpose(w)).sum()
    assert left.item() == pytest.approx(right.item(), rel=1e-12)
    lift = here.transpose(here.solve(w))
    torch.testing.assert_close(here.apply(lift), w)
    unseen = g - here.transpose(here.solve(here.apply(g)))
    assert (lift * unseen).sum().item() == pytest.approx(0.0, abs=1e-9)
    for ask in (projection.transpose, projection.solve):
        with pytest.raises(TypeError, match="at"):
            ask(w)


def test_a_fixed_map_is_the_same_at_all_clips() -> None:
    projection = make_projection("mean", SHAPE)
    assert projection.fixed
    assert projection.at(activation()) is projection


def test_a_layer_may_name_a_projection_of_its_own() -> None:
    assert layer_and_projection("early", "mean") == ("early", "mean")
    assert layer_and_projection("backbone.layers.0@grid:4", "mean") == ("backbone.layers.0", "grid:4")


def test_half_types_are_added_up_in_float32() -> None:
    a = activation().to(torch.bfloat16)
    assert make_projection("mean", SHAPE).apply(a).dtype == torch.float32


@pytest.mark.parametrize("spec", ["max", "moving:2", "sketch", "sketch:0", "sketch:x", "grid", "grid:0", "mean:2"])
def test_unknown_projection(spec: str) -> None:
    with pytest.raises(ConfigError, match=r"activations\.projection"):
        make_projection(spec, SHAPE)


@pytest.mark.parametrize(("spec", "gain"), [("mean", 60), ("time", 15), ("space", 4), ("flat", 1), ("grid:1", 60)])
def test_the_gain_of_a_mean_is_its_number_of_positions(spec: str, gain: float) -> None:
    found = make_projection(spec, SHAPE).gains(3)
    assert found.tolist() == [gain] * 3


@pytest.mark.parametrize("spec", ["mean", "time", "space", "flat", "grid:3", "moving", "still"])
def test_the_gain_is_what_the_lift_moves_over_what_the_vectors_say(spec: str) -> None:
    """grad h · P⁺Δz = gain * (P grad h)·Δz, at each clip."""
    a, gradient = activation(shape=(4, 3, 6, 6)), activation(shape=(4, 3, 6, 6)).flip(0)
    here = make_projection(spec, (4, 3, 6, 6)).at(a)
    delta = torch.randn(1, here.d, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).expand(3, -1)
    moved = (gradient * here.transpose(here.solve(delta))).sum((1, 2, 3, 4))
    gains = here.gains(3)
    assert gains.dtype == torch.float64
    torch.testing.assert_close(moved, gains * (here.apply(gradient) * delta).sum(1))
    expected = {"mean": 72, "time": 18, "space": 4, "flat": 1, "grid:3": 8}
    if spec in expected:
        assert gains.tolist() == pytest.approx([expected[spec]] * 3)
    else:
        assert len(set(gains.tolist())) == 3
        assert ((gains >= 4) & (gains <= 72)).all()  # one place, or all


def test_a_grid_whose_blocks_differ_has_their_mean_gain() -> None:
    counts = [4 * rows * columns for rows in (1, 2) for columns in (2, 3)]
    assert make_projection("grid:2", SHAPE).gains(2).tolist() == pytest.approx([np.mean(counts)] * 2)


@pytest.mark.slow
def test_a_sketch_estimates_the_move_of_the_whole_activation() -> None:
    a, gradient = activation(1), activation(1) + 0.2 * activation(1).flip(1)
    whole = (gradient * a).sum().item()
    found = []
    for seed in range(200):
        sketch = make_projection("sketch:64", SHAPE, seed)
        found.append((sketch.gains(1) * (sketch.apply(gradient) * sketch.apply(a)).sum(1)).item())
    assert np.mean(found) == pytest.approx(whole, abs=4 * np.std(found) / np.sqrt(200))
    assert 64 / math.prod(SHAPE) * whole < np.mean(found) / 2  # which the lift alone would give

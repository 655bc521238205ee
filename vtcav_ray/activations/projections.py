"""The linear maps P from a layer's activation `[T', H', W', C]` to a vector of d numbers.

Why storing P a and P∇h is enough. For a clip with activation a, a CAV w is learned from z = P a, so in activation space
the CAV is Pᵀw, and the derivative of a class's logit h along it is

    d/dε h(a + ε Pᵀw) at ε = 0  =  ∇h · (Pᵀw)  =  (P ∇h) · w,

because P is linear. So P∇h, once per (clip, layer, class), answers for every CAV that will ever be trained on this
layer, without running the model again. A test checks the identity by finite differences, for every projection.

`sketch:k` is a sparse Johnson-Lindenstrauss map (Kane and Nelson, "Sparser Johnson-Lindenstrauss transforms", 2014, in
its count-sketch form; Dasgupta, Kumar and Sarlós 2010). A dense k x D matrix for D = 2.4 million and k = 1024 would
take 10 GB. Here each of `REPEATS` rounds shuffles the D numbers, flips signs, and adds up D/k of them for each of the k
outputs. Every column of P has REPEATS entries of ±1/sqrt(REPEATS) (they may meet in one row), so for all x, y

    E ⟨Px, Py⟩ = ⟨x, y⟩    and    Var ⟨Px, Py⟩ <= (‖x‖²‖y‖² + ⟨x, y⟩²) / k,

as with a dense matrix of signs; cosines are off by about sqrt(1/k). Several rounds keep the tails of the error light
for vectors with few large entries, where a single one would let them collide. The shuffles come from NumPy's frozen
`RandomState` streams, so they are the same on every machine, device and version, and for every batch. They are gathers
and sums in a fixed order, not scattered additions: the same input gives the same bits, on a GPU too.

`moving` and `still` are means over places with weights from the clip itself: the places where its activation changes
most in time, or hardly at all. The map P_x depends on the clip x, but it is linear, and a clip's activation and its
gradients go through the same map. So (P_x ∇h)·w is the derivative of h for the CAV's change, applied where x moves (or
where it does not), and means of such derivatives over a class's clips keep their meaning. Their purpose: the mean over
all places loses a small object that could be anywhere, and means over single places (`space`, `flat`) measure whether
the object matters THERE, which it may not in early layers of a convolutional network.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property, lru_cache

import numpy as np
import torch

from vtcav_ray.errors import ConfigError
from vtcav_ray.registry import PROJECTIONS, UnknownName

REPEATS = 4
LAYER_AND_OWN = "@"  # `early@moving`: a layer with its own projection
_PEAK = 8  # the weights' exponent; 4 and 8 were tried (benchmarks/RESULTS.md)
_STILL = 1e-4  # a clip that changes less than this part of its activation anywhere has no places that move
_PROBES = 4  # random signs for the gain of a projection that does not know its own
_SOLVED, _MAX_STEPS = 1e-9, 500  # relative residual of `solve`; k steps would be exact
Shape = tuple[int, int, int, int]


class Projection(ABC):
    """A fixed linear map from `[T', H', W', C]` to d numbers.

    Attributes:
        shape: T', H', W', C.
        d: length of the vectors.
        fixed: the same map for every clip; else take it `at` the clips, and their gradients through the same.
    """

    fixed = True

    def __init__(self, shape: Shape, d: int) -> None:
        self.shape = shape
        self.d = d

    def at(self, a: torch.Tensor) -> Projection:
        """Return the map for B clips with activations `[B, T', H', W', C]`: this one if it is the same for all."""
        return self

    @abstractmethod
    def apply(self, a: torch.Tensor) -> torch.Tensor:
        """Return P a: `[B, T', H', W', C]` -> `[B, d]`, in a's type (float32 for half types) and on its device."""

    @abstractmethod
    def transpose(self, w: torch.Tensor) -> torch.Tensor:
        """Return Pᵀw: `[B, d]` -> `[B, T', H', W', C]`."""

    @abstractmethod
    def solve(self, z: torch.Tensor) -> torch.Tensor:
        """Return (P Pᵀ)⁻¹ z, `[B, d]`, which turns a move in P-space into a CAV-like direction.

        `transpose(solve(z))` is the LIFT of z, P⁺z: of all changes δ of the activation with P δ = z the smallest. For
        the means it adds z at every position that was averaged, and so moves the mean by z. (Pᵀz alone would add z
        divided by the number of positions.) The derivative of a logit along it is (P∇h)·solve(z).
        """

    def gains(self, count: int) -> torch.Tensor:
        """Return the gain at each of `count` clips, float64: logits of a move of the WHOLE activation by Δz, to first
        order, for one of (P∇h)·Δz.

        It is the mean of the diagonal of (P Pᵀ)⁻¹, so (P∇h)·solve(Δz) = gain * (P∇h)·Δz wherever that matrix is a
        multiple of the identity. A subclass whose P is `fixed` needs no own `gains`.
        """
        return torch.full((count,), self._gain, dtype=torch.float64)

    @cached_property
    def _gain(self) -> float:
        signs = np.random.RandomState(0).randint(0, 2, (_PROBES, self.d)) * 2.0 - 1.0
        probes = torch.from_numpy(signs)
        return float((probes * self.solve(probes)).mean())


class Mean(Projection):
    """The mean over some of T', H', W'; the other axes are kept, in their order."""

    def __init__(self, shape: Shape, over: tuple[int, ...]) -> None:
        kept = [n for axis, n in enumerate(shape) if axis not in over]
        super().__init__(shape, math.prod(kept))
        self.over = tuple(axis + 1 for axis in over)
        self.count = math.prod(shape[axis] for axis in over)
        self.inner = tuple(1 if axis in over else n for axis, n in enumerate(shape))

    def apply(self, a: torch.Tensor) -> torch.Tensor:
        a = _checked(a, self.shape)
        return (a.mean(self.over) if self.over else a).reshape(len(a), self.d)

    def transpose(self, w: torch.Tensor) -> torch.Tensor:
        return (w.reshape(len(w), *self.inner) / self.count).expand(len(w), *self.shape)

    def solve(self, z: torch.Tensor) -> torch.Tensor:
        return z * self.count  # each row of P holds 1/count, count times, and no two rows meet

    def gains(self, count: int) -> torch.Tensor:
        return torch.full((count,), float(self.count), dtype=torch.float64)


class Grid(Projection):
    """The means over time and over the blocks of an n x n grid of places: `[n, n, C]`. It keeps approximate positions.

    If a side is no multiple of n, its blocks differ by one place. A side shorter than n has a block for each place.
    """

    def __init__(self, shape: Shape, n: int) -> None:
        t, h, w, self.channels = shape
        rows, columns = (_edges(side, min(n, side)) for side in (h, w))
        self.blocks = [(slice(*row), slice(*column)) for row in rows for column in columns]
        self.counts = torch.tensor([t * (r.stop - r.start) * (c.stop - c.start) for r, c in self.blocks])
        super().__init__(shape, len(self.blocks) * self.channels)

    def apply(self, a: torch.Tensor) -> torch.Tensor:
        a = _checked(a, self.shape).mean(1)
        return torch.cat([a[:, rows, columns].mean((1, 2)) for rows, columns in self.blocks], 1)

    def transpose(self, w: torch.Tensor) -> torch.Tensor:
        found = w.new_empty(len(w), *self.shape)
        for block, (rows, columns) in enumerate(self.blocks):
            of_block = w[:, block * self.channels : (block + 1) * self.channels] / self.counts[block]
            found[:, :, rows, columns] = of_block[:, None, None, None]
        return found

    def solve(self, z: torch.Tensor) -> torch.Tensor:
        return z * self.counts.to(z.device).repeat_interleave(self.channels)  # no two rows of P meet, as for the means


def _edges(side: int, blocks: int) -> list[tuple[int, int]]:
    return [(i * side // blocks, (i + 1) * side // blocks) for i in range(blocks)]


class Places(Projection):
    """`moving` and `still`: the mean over time and over the places where the clip moves, or where it doesn't. `[C]`.

    A place's activity s is its standard deviation over T', the mean over C. `moving` weighs places by s^8, `still` by
    (1 - s / max s)^8. A clip in which nothing changes, or a layer without places or times, has equal weights.
    """

    fixed = False

    def __init__(self, shape: Shape, moving: bool) -> None:
        super().__init__(shape, shape[3])
        self.moving = moving

    @property
    def is_mean(self) -> bool:
        """Whether every clip gets equal weights: the layer has one time step, or one place."""
        return self.shape[0] == 1 or self.shape[1] * self.shape[2] == 1

    def at(self, a: torch.Tensor) -> Projection:
        a = _checked(a, self.shape)
        activity = a.std(1, correction=0).mean(-1)  # B H' W'
        most = activity.amax((1, 2), keepdim=True)
        size = a.square().mean((1, 2, 3, 4)).sqrt()[:, None, None]
        relative = torch.where(most > _STILL * size, activity / most.clamp_min(1e-30), 1.0)
        weights = (relative if self.moving else 1 - relative).pow(_PEAK)
        weights = torch.where(weights.sum((1, 2), keepdim=True) > 0, weights, 1.0)
        return _Weighted(self.shape, weights / weights.sum((1, 2), keepdim=True))

    def apply(self, a: torch.Tensor) -> torch.Tensor:
        return self.at(a).apply(a)

    def transpose(self, w: torch.Tensor) -> torch.Tensor:
        raise TypeError("this projection depends on the clip: get its map with `at(activations)` first")

    def solve(self, z: torch.Tensor) -> torch.Tensor:
        raise TypeError("this projection depends on the clip: get its map with `at(activations)` first")


class _Weighted(Projection):
    """`Places` at B clips: the mean over time, and over places with weights `[B, H', W']` that add up to 1."""

    def __init__(self, shape: Shape, weights: torch.Tensor) -> None:
        super().__init__(shape, shape[3])
        self.weights = weights

    def apply(self, a: torch.Tensor) -> torch.Tensor:
        mean = _checked(a, self.shape).mean(1)
        return torch.einsum("bhwc,bhw->bc", mean, self.weights.to(mean.dtype))

    def transpose(self, w: torch.Tensor) -> torch.Tensor:
        weights = self.weights[:, None, :, :, None].to(w.dtype) / self.shape[0]
        return (w[:, None, None, None, :] * weights).expand(-1, *self.shape)

    def solve(self, z: torch.Tensor) -> torch.Tensor:
        # Rows of P don't meet; each has the square sum of the weights over T'.
        return z * self.shape[0] / self.weights.to(z.dtype).square().sum((1, 2))[:, None]

    def gains(self, count: int) -> torch.Tensor:
        assert count == len(self.weights), f"{count} clips, and weights of {len(self.weights)}"
        return self.shape[0] / self.weights.double().square().sum((1, 2))


class Sketch(Projection):
    """A sparse, signed random projection of all numbers to k; see the top of this file."""

    def __init__(self, shape: Shape, k: int, seed: int) -> None:
        super().__init__(shape, k)
        self.seed = seed
        self.total = math.prod(shape)
        self.per_output = -(-self.total // k)  # the last ones are zeros

    def apply(self, a: torch.Tensor) -> torch.Tensor:
        flat = _checked(a, self.shape).reshape(len(a), self.total)
        flat = torch.nn.functional.pad(flat, (0, self.per_output * self.d - self.total))
        z = flat.new_zeros(len(flat), self.d)
        for round_ in range(REPEATS):
            order, signs = self._shuffle(round_, flat.device)
            picked = flat.index_select(1, order).reshape(len(flat), self.per_output, self.d)
            z += (picked * signs.to(flat.dtype).reshape(self.per_output, self.d)).sum(1)
        return z / math.sqrt(REPEATS)

    def transpose(self, w: torch.Tensor) -> torch.Tensor:
        flat = w.new_zeros(len(w), self.per_output * self.d)
        for round_ in range(REPEATS):
            order, signs = self._shuffle(round_, w.device)
            flat[:, order] += w.repeat(1, self.per_output) * signs.to(w.dtype)  # a permutation: no collisions
        return flat[:, : self.total].reshape(len(w), *self.shape) / math.sqrt(REPEATS)

    def solve(self, z: torch.Tensor) -> torch.Tensor:
        # Conjugate gradients: P Pᵀ is near (D / k) times the identity, so few steps do, and no k x k matrix is formed.
        z = z.double()
        found, left = torch.zeros_like(z), z.clone()
        along, square = left.clone(), (left * left).sum(1, keepdim=True)
        goal = _SOLVED**2 * square
        for _ in range(_MAX_STEPS):
            if not (square > goal).any():
                break
            image = self.apply(self.transpose(along))
            length = square / (along * image).sum(1, keepdim=True).clamp_min(1e-300)
            found += length * along
            left -= length * image
            new = (left * left).sum(1, keepdim=True)
            along = left + new / square.clamp_min(1e-300) * along
            square = new
        return found

    def gains(self, count: int) -> torch.Tensor:
        # Inner products survive the sketch, so (P∇h)·(PΔa) is already an estimate of ∇h·Δa for the whole activation.
        # The lift would move only the k directions of all D that the sketch sees.
        return torch.ones(count, dtype=torch.float64)

    def _shuffle(self, round_: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        return _shuffle(self.per_output * self.d, self.seed, round_, device)


@lru_cache(maxsize=4 * REPEATS)
def _shuffle(n: int, seed: int, round_: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a permutation of n places (int32 saves half the memory) and n signs (int8)."""
    stream = np.random.RandomState([seed % 2**32, round_])
    order = torch.from_numpy(stream.permutation(n).astype(np.int32)).to(device)
    signs = torch.from_numpy(stream.randint(0, 2, n).astype(np.int8) * 2 - 1).to(device)
    return order, signs


@PROJECTIONS.register("mean")
def _mean(shape: Shape, seed: int) -> Projection:
    return Mean(shape, (0, 1, 2))


@PROJECTIONS.register("time")
def _time(shape: Shape, seed: int) -> Projection:
    return Mean(shape, (1, 2))


@PROJECTIONS.register("space")
def _space(shape: Shape, seed: int) -> Projection:
    return Mean(shape, (0,))


@PROJECTIONS.register("flat")
def _flat(shape: Shape, seed: int) -> Projection:
    return Mean(shape, ())


@PROJECTIONS.register("moving")
def _moving(shape: Shape, seed: int) -> Projection:
    return Places(shape, True)


@PROJECTIONS.register("still")
def _still(shape: Shape, seed: int) -> Projection:
    return Places(shape, False)


@PROJECTIONS.register("grid:n")
def _grid(shape: Shape, seed: int, n: int) -> Projection:
    return Grid(shape, n)


@PROJECTIONS.register("sketch:k")
def _sketch(shape: Shape, seed: int, k: int) -> Projection:
    if k >= math.prod(shape):
        return Mean(shape, ())  # nothing to save: all numbers fit
    return Sketch(shape, k, seed)


def make_projection(spec: str, shape: Shape, seed: int = 0) -> Projection:
    """Return the projection of a config's `activations.projection` for one layer.

    Args:
        spec: `mean`, `time`, `space`, `flat`, `moving`, `still`, `grid:n`, `sketch:k`, or a registered one: a
            function of the shape, the seed and, if its name ends in `:n`, that number.
        shape: T', H', W', C of the layer.
        seed: of the sketch; the others don't use it.

    Raises:
        ConfigError: no such projection.
    """
    try:
        name, numbers = PROJECTIONS.resolve(spec)
    except UnknownName as error:
        raise ConfigError(f"activations.projection: {error}") from error
    projection: Projection = PROJECTIONS[name](shape, seed, *numbers)
    return projection


def layer_and_projection(name: str, projection: str) -> tuple[str, str]:
    """Split an entry of `activations.layers` into (layer, projection); `early` gets the default projection."""
    layer, _, own = name.partition(LAYER_AND_OWN)
    return layer, own or projection


def _checked(a: torch.Tensor, shape: Shape) -> torch.Tensor:
    assert tuple(a.shape[1:]) == shape, f"{tuple(a.shape)} is not [B, {', '.join(map(str, shape))}]"
    return a if a.dtype in (torch.float32, torch.float64) else a.float()

"""The checks of `vtcav faithful` on one network of a world: the rows that the command computes, from arrays.

The functions are the command's own (`vtcav_ray.faithful`); only reading and writing of a run is left out. A clip is a
source video of its own. Columns are the default layers, as in `recogniser.COLUMNS`.

Legend: J concepts of n clips, R random sets; K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from vtcav_ray.activations.projections import layer_and_projection, make_projection
from vtcav_ray.cavs import gram, train_cavs
from vtcav_ray.cavs.plan import Pool as Names
from vtcav_ray.faithful.effects import RunClips, Tested, effects, weighed
from vtcav_ray.faithful.erase import ErasedNetwork
from vtcav_ray.faithful.erasing import Example, LayerEraser
from vtcav_ray.faithful.halves import halves
from vtcav_ray.faithful.plan import Chosen, LayerDirections
from vtcav_ray.models import Recogniser
from vtcav_ray.models.layers import resolve_layer
from vtcav_ray.models.shuffled import layers_not_after, modules_after, shuffle_weights
from vtcav_ray.rows import ErasureRow, FiniteChangeRow, HalfRow, table_of
from vtcav_ray.scores.cells import Cell
from vtcav_ray.scores.families import Labels
from vtcav_ray.scores.layer_data import LayerClips, ScoreOptions
from vtcav_ray.tcav.directions import directions
from vtcav_ray.tcav.scores import score
from vtcav_ray.tcav.significance import null_pairs, round_robin_test
from worlds.recipes import Sets
from worlds.recogniser import COLUMNS, default_vectors

KIND = "world"
CLASSES = ("class 0", "class 1")
ALL_COLUMNS = tuple(name for columns in COLUMNS.values() for name in columns)
ALPHA = 0.05


@dataclass(frozen=True)
class Asked:
    """What is examined.

    Attributes:
        concepts: their names, in the order of `sets.concepts`.
        sets: rows of `pool`.
        pool, own, reference: clips of concepts and random sets; each class's own; those that gradients are taken at.
        reference_classes: class of each reference clip.
        clips, random_sets: sizes of the erasures, as the command's options.
        permutations: of the effects' tests.
        seed: of everything drawn.
    """

    concepts: tuple[str, ...]
    sets: Sets
    pool: NDArray[np.uint8]
    own: Sequence[NDArray[np.uint8]]
    reference: NDArray[np.uint8]
    reference_classes: NDArray[np.int64]
    clips: int
    random_sets: int
    permutations: int
    seed: int

    @property
    def full_names(self) -> tuple[str, ...]:
        return tuple(f"{name}/{KIND}" for name in self.concepts)

    @property
    def options(self) -> ScoreOptions:
        return ScoreOptions(0, self.permutations, self.seed)


@dataclass(frozen=True)
class Measured:
    """What a run stores: activations and gradients of every column, for the functions of `vtcav_ray.faithful`."""

    layers: tuple[LayerClips, ...]
    clips: RunClips
    gradients: Mapping[str, NDArray[np.float32]]  # column -> [reference clips, K, d], times the gain


def measured(recogniser: Recogniser, asked: Asked) -> Measured:
    """Extract activations of the pool and gradients of both classes at the reference clips."""
    pool = default_vectors(recogniser, asked.pool)
    reference = default_vectors(recogniser, asked.reference, [[0, 1]] * len(asked.reference))
    names, videos = _names(asked), [f"r{i}" for i in range(len(asked.reference))]
    layers, gradients = [], {}
    for column in ALL_COLUMNS:
        both = reference.gradients[column].reshape(len(videos), len(CLASSES), -1)
        gains = reference.gains[column]
        gradients[column] = both * gains[:, None, None].astype(np.float32)
        classes = [weighed(name, both[:, k], gains, videos) for k, name in enumerate(CLASSES)]
        layers.append(LayerClips(column, "", names, names.video_id, pool.activations[column], classes))
    return Measured(tuple(layers), _run_clips(asked, names), gradients)


def _names(asked: Asked) -> Names:
    videos = [f"p{i}" for i in range(len(asked.pool))]
    return Names(["concept"] * len(videos), [""] * len(videos), [KIND] * len(videos), videos)


def _run_clips(asked: Asked, names: Names) -> RunClips:
    none, random = np.zeros(0, np.int64), asked.sets.randoms.ravel()
    cells = {
        name: Cell(name, "random", KIND, none, none, rows, random, False)
        for name, rows in zip(asked.full_names, asked.sets.concepts, strict=True)
    }
    labels = Labels(np.full(len(names.video_id), ""), False)
    return RunClips(tuple(names.video_id), tuple(names.video_id), cells, labels)


def run_effects(found: Measured, asked: Asked) -> list[Tested]:
    """Return the effect of every concept on each class at each column."""
    return effects(found.layers, found.clips, asked.options)


def sign_counts(recogniser: Recogniser, found: Measured, asked: Asked) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the TCAV scores and their p by round robin, [columns, K, J], as the stage `scores` has them."""
    own = [default_vectors(recogniser, clips, [[k]] * len(clips)) for k, clips in enumerate(asked.own)]
    randoms = asked.sets.randoms
    size = randoms.shape[1]  # the test wants sets of equal sizes
    pairs = null_pairs(len(randoms))
    positives = [rows[:size] for rows in asked.sets.concepts for _ in randoms] + [randoms[i] for i, _ in pairs]
    negatives = [rows for _ in asked.sets.concepts for rows in randoms] + [randoms[j] for _, j in pairs]
    scores, ps = [], []
    for layer in found.layers:
        cavs = train_cavs(layer.vectors_ND, np.stack(positives), np.stack(negatives), seed=asked.seed).vectors
        for one in own:
            counts = score(one.gradients[layer.layer], cavs).sign_count
            split = len(asked.concepts) * len(randoms)
            per_concept = counts[:split].reshape(len(asked.concepts), len(randoms))
            test = round_robin_test(per_concept, np.tile(counts[split:], (len(asked.concepts), 1)))
            scores.append(test.score)
            ps.append(test.p)
    shape = (len(found.layers), len(CLASSES), len(asked.concepts))
    return np.reshape(scores, shape), np.reshape(ps, shape)


def layer_directions(layer: LayerClips, asked: Asked) -> LayerDirections:
    """Return every concept's difference of means and mean logistic CAV, and directions of chance."""
    videos = np.array(layer.pool.video_id)
    random = asked.sets.randoms.ravel()
    pattern, shift, filters, found = {}, {}, {}, None
    randoms = asked.sets.randoms
    for name, rows in zip(asked.full_names, asked.sets.concepts, strict=True):
        own, other = layer.vectors_ND[rows], layer.vectors_ND[random]
        found = directions(
            own, videos[rows].tolist(), other, videos[random].tolist(), count=asked.random_sets, seed=asked.seed
        )
        pattern[name] = found.concept_d
        shift[name] = (own.mean(axis=0, dtype=np.float64) - found.base_d).astype(np.float32)
        cavs = train_cavs(gram(layer.vectors_ND), np.tile(rows, (len(randoms), 1)), randoms, seed=asked.seed)
        mean = cavs.vectors.astype(np.float64).mean(axis=0)
        filters[name] = (mean / np.linalg.norm(mean)).astype(np.float32)
    assert found is not None, "there are concepts"
    return LayerDirections(
        pattern, shift, filters, {KIND: found.random_Rd}, {KIND: found.base_d}, dict.fromkeys(pattern, KIND)
    )


@dataclass(frozen=True)
class Erased:
    """Raw rows of erasures and of real changes, with curves by the name of the order that they took."""

    erasures: pa.Table
    finite: pa.Table
    curves: Mapping[str, pa.Table]


def erased(
    recogniser: Recogniser, found: Measured, asked: Asked, orders: Mapping[str, Mapping[tuple[str, str], Sequence[str]]]
) -> Erased:
    """Erase every direction at a few reference clips of each class.

    Args:
        orders: name -> (class, column) -> concepts that a curve erases one after the other.
    """
    picked = np.concatenate([np.flatnonzero(asked.reference_classes == k)[: asked.clips] for k in (0, 1)])
    singles: list[ErasureRow] = []
    finite: list[FiniteChangeRow] = []
    curves: dict[str, list[ErasureRow]] = {name: [] for name in orders}
    for layer in found.layers:
        column = layer.layer
        module, spec = layer_and_projection(column, "mean")
        clips = [asked.reference[i] for i in picked]
        network = ErasedNetwork(recogniser, resolve_layer(recogniser, module), clips, "center")
        examples = [
            Example(
                f"r{i}", f"r{i}", CLASSES[asked.reference_classes[i]],
                dict(zip(CLASSES, found.gradients[column][i], strict=True)),
            )
            for i in picked
        ]  # fmt: skip
        known = layer_directions(layer, asked)
        index = {name: k for k, name in enumerate(CLASSES)}

        def eraser(order: Mapping[tuple[str, str], Sequence[str]], layer: str = column) -> LayerEraser:
            kept = {key: tuple(names) for key, names in order.items()}
            chosen = Chosen(ALL_COLUMNS, CLASSES, asked.full_names, asked.clips, asked.random_sets, kept)
            return LayerEraser(network, examples, index, "logit", known, chosen, layer, asked.seed)  # noqa: B023

        first = eraser({})
        singles += first.single()
        finite += first.finite(make_projection(spec, network.shape))
        for name, order in orders.items():
            curves[name] += eraser(order).curves()
    return Erased(
        table_of(singles, ErasureRow),
        table_of(finite, FiniteChangeRow),
        {name: table_of(rows, ErasureRow) for name, rows in curves.items()},
    )


def split_halves(found: Measured, asked: Asked) -> pa.Table:
    """Return every effect in both halves of the clips, for each split."""
    return table_of(halves(found.layers, found.clips, asked.options, ALPHA), HalfRow)


def with_shuffled_weights(
    make: Any, found: Measured, asked: Asked, levels: Iterable[str | None]
) -> dict[str, list[Tested]]:
    """Return level -> effects with shuffled weights: all of them (None), or those after a layer.

    Args:
        make: returns a copy of the network, whose weights are shuffled in place.
        levels: `None`, or layers.
    """
    out = {}
    for level in levels:
        model: Recogniser = make()
        kept = list(ALL_COLUMNS)
        if level is None:
            shuffle_weights(list(model.module.modules()), asked.seed)
        else:
            paths = {one: resolve_layer(model, one.partition("@")[0]) for one in ALL_COLUMNS}
            x = model.preprocess([asked.reference[0]], "center").flatten(0, 1)
            same = layers_not_after(model, paths[level], list(paths.values()), x)
            shuffle_weights(modules_after(model, paths[level], x), asked.seed)
            kept = [one for one, path in paths.items() if path in same]
        again = measured(model, asked)
        layers = [one for one in again.layers if one.layer in kept]
        out["whole" if level is None else f"after {level}"] = effects(layers, found.clips, asked.options)
    return out


def copied(recogniser: Recogniser, fresh: Recogniser) -> Recogniser:
    """Give a fresh recogniser the weights of another."""
    with torch.no_grad():
        fresh.module.load_state_dict(recogniser.module.state_dict())
    fresh.module.eval().requires_grad_(False)
    return fresh

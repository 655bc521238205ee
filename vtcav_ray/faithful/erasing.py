"""Erase every direction of a layer at a few class examples: the raw figures of necessity, curves and first order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vtcav_ray.activations.targets import Target, target_values
from vtcav_ray.faithful.erase import ErasedNetwork, Grid, orthonormal
from vtcav_ray.faithful.plan import Chosen, LayerDirections, Vector
from vtcav_ray.rows import ErasureRow, FiniteChangeRow
from vtcav_ray.runs.costs import CheckSizes
from vtcav_ray.tcav.directions import on_channels

CHAINS = CheckSizes.chains


@dataclass(frozen=True)
class Example:
    """A class example: ids, its class, and the places of all examined classes among the logits.

    `gradients`: (class) -> P-space gradient of its target at this clip, times the gain.
    """

    clip_id: str
    video_id: str
    class_: str
    gradients: Mapping[str, Vector]


class LayerEraser:
    """Erases the directions of one layer at B examples.

    Args:
        network: the network after the layer, at the clips of these examples.
        examples: B class examples, in the order of the clips.
        index_of: class -> its place among the logits.
        target: what is measured of a class.
        found: directions of the layer.
        chosen: classes, and the order of concepts in curves.
        layer: its name.
        seed: of the shuffled order.
    """

    def __init__(
        self,
        network: ErasedNetwork,
        examples: Sequence[Example],
        index_of: Mapping[str, int],
        target: Target,
        found: LayerDirections,
        chosen: Chosen,
        layer: str,
        seed: int,
    ) -> None:
        self.network, self.examples, self.index_of = network, examples, index_of
        self.target, self.found, self.chosen, self.layer, self.seed = target, found, chosen, layer, seed
        self.own_B = np.array([index_of[one.class_] for one in examples])
        self.plain_B = self._values(network.plain, self.own_B)
        self._base = {kind: self._grid(vector[None])[0] for kind, vector in found.base.items()}
        self._common = np.mean(list(self._base.values()), axis=0)

    def single(self) -> list[ErasureRow]:
        """Erase each concept's pattern and filter, and each direction of chance, one at a time."""
        rows: list[ErasureRow] = []
        for concept, vector in self.found.pattern.items():
            base = self._base[self.found.kind_of[concept]]
            rows += self._rows("pattern", concept, [self._erase(vector[None], base)])
            if concept in self.found.filters:
                rows += self._rows("filter", concept, [self._erase(self.found.filters[concept][None], base)])
        for kind, vectors in self.found.random.items():
            for r, vector in enumerate(vectors):
                rows += self._rows("random", f"{kind}#{r}", [self._erase(vector[None], self._base[kind])])
        return rows

    def curves(self) -> list[ErasureRow]:
        """Erase each class's concepts one after the other: in order of effect, reversed, shuffled, and by chance."""
        rows: list[ErasureRow] = []
        for name in dict.fromkeys(one.class_ for one in self.examples):
            order = [c for c in self.chosen.orders[name, self.layer] if c in self.found.pattern]
            if len(order) < 2:
                continue
            shuffled = list(np.random.RandomState(self.seed % 2**32).permutation(np.array(order, dtype=object)))
            for what, names in (("in_order", order), ("reversed", order[::-1]), ("shuffled", shuffled)):
                vectors = np.stack([self.found.pattern[one] for one in names])
                rows += self._rows(what, ", ".join(names), self._chain(vectors), of=name)
            kinds = [self.found.kind_of[one] for one in order]
            for r in range(min(CHAINS, self.chosen.random_sets)):
                chain = [self.found.random[kind][(r + 7 * i) % self.chosen.random_sets] for i, kind in enumerate(kinds)]
                rows += self._rows("random_order", f"#{r}", self._chain(np.stack(chain)), of=name)
        return rows

    def finite(self, projection: object) -> list[FiniteChangeRow]:
        """Move each example by each concept's shift, and compare every class's change with the first-order one."""
        rows = []
        for concept, delta in self.found.shift.items():
            logits = self.network.shifted(projection, delta)  # type: ignore[arg-type]
            for name in self.chosen.classes:
                place = np.full(len(self.examples), self.index_of[name])
                real_B = self._values(logits, place) - self._values(self.network.plain, place)
                for one, real in zip(self.examples, real_B, strict=True):
                    if name in one.gradients:
                        rows.append(
                            FiniteChangeRow(
                                clip_id=one.clip_id,
                                video_id=one.video_id,
                                class_=name,
                                layer=self.layer,
                                concept=concept,
                                predicted=float(one.gradients[name] @ delta),
                                real=float(real),
                            )
                        )
        return rows

    def _chain(self, vectors_kd: Vector) -> list[NDArray[np.float32]]:
        return [self._erase(vectors_kd[: i + 1], self._common) for i in range(len(vectors_kd))]

    def _erase(self, vectors_kd: Vector, base_SC: Grid) -> NDArray[np.float32]:
        return self.network.erased(orthonormal(self._grid(vectors_kd)), base_SC)

    def _grid(self, vectors_kd: Vector) -> Grid:
        return on_channels(np.asarray(vectors_kd, np.float32), self.network.channels)

    def _rows(
        self, what: str, name: str, steps: Sequence[NDArray[np.float32]], of: str | None = None
    ) -> list[ErasureRow]:
        """Return one row per example of the class `of` (None: of any) from the logits after each step."""
        changes = [self._values(logits, self.own_B) - self.plain_B for logits in steps]
        answered = [logits.argmax(1) == self.own_B for logits in steps]
        return [
            ErasureRow(
                clip_id=one.clip_id,
                video_id=one.video_id,
                class_=one.class_,
                layer=self.layer,
                what=what,
                name=name,
                changes=[float(change[b]) for change in changes],
                predicted=[int(right[b]) for right in answered],
            )
            for b, one in enumerate(self.examples)
            if of in (None, one.class_)
        ]

    def _values(self, logits_BK: NDArray[np.float32], classes_B: NDArray[np.int64]) -> NDArray[np.float32]:
        values = target_values(torch.from_numpy(logits_BK), torch.from_numpy(classes_B), self.target)
        return np.asarray(values.numpy(), np.float32)

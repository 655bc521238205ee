"""How alike the concepts' directions are at a layer (entanglement): cosines of their mean CAVs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Likeness:
    """One layer's concepts against one another.

    Attributes:
        layer: its name.
        concepts: K names `<name>/<kind>`, sorted.
        cosine: float32 [K, K], of the mean of each concept's R CAVs.
    """

    layer: str
    concepts: Sequence[str]
    cosine: np.ndarray


def likeness_of_concepts(cavs: Iterable[pa.Table]) -> list[Likeness]:
    """Cosines between the concepts' mean CAVs, layer by layer.

    Args:
        cavs: parts of the cavs table with layer, concept, negatives, is_null, vector. Only CAVs against random sets
            count, and not the null's. Memory grows with layers x concepts x d, and not with R.
    """
    sums: dict[str, dict[str, np.ndarray]] = {}
    for part in cavs:
        part = part.filter(pc.and_(pc.invert(part["is_null"]), pc.starts_with(part["negatives"], "random/")))
        columns = (part["layer"].to_pylist(), part["concept"].to_pylist(), _vectors(part))
        for layer, concept, vector in zip(*columns, strict=True):
            of_layer = sums.setdefault(layer, {})
            of_layer[concept] = of_layer[concept] + vector if concept in of_layer else vector.astype(np.float64)
    return [_likeness(layer, of_layer) for layer, of_layer in sums.items()]


def _vectors(part: pa.Table) -> np.ndarray:
    """float32 [rows, d]; all rows of one part are of one layer, or at least of one length."""
    if part.num_rows == 0:
        return np.zeros((0, 0), np.float32)
    flat = part["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(part.num_rows, -1)


def _likeness(layer: str, of_layer: dict[str, np.ndarray]) -> Likeness:
    concepts = sorted(of_layer)
    mean_KD = np.stack([of_layer[c] for c in concepts])
    length_K1 = np.linalg.norm(mean_KD, axis=1, keepdims=True)
    unit_KD = np.divide(mean_KD, length_K1, out=np.zeros_like(mean_KD), where=length_K1 > 0)
    return Likeness(layer, concepts, (unit_KD @ unit_KD.T).astype(np.float32))

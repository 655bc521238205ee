"""How alike the concepts' directions are at a layer: the `entanglement` table as one matrix a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Entanglement:
    """One layer's concepts against one another.

    Attributes:
        layer: its name.
        concepts: K names `<name>/<kind>`, sorted.
        cosine: float32 [K, K], of the mean of each concept's CAVs against random sets; NaN: not in the table.
    """

    layer: str
    concepts: Sequence[str]
    cosine: np.ndarray


def read_entanglement(table: pa.Table | None, layers: Sequence[str]) -> list[Entanglement]:
    """The table's layers, in the order of `layers`; those without rows are left out.

    Args:
        table: rows of `tables.ENTANGLEMENT`; None: there are none.
    """
    if table is None:
        return []
    parts = ((layer, table.filter(pc.equal(table["layer"], layer))) for layer in layers)
    return [_of_layer(layer, part) for layer, part in parts if part.num_rows]


def _of_layer(layer: str, part: pa.Table) -> Entanglement:
    names = [np.asarray(part[column].to_pylist()) for column in ("concept", "other")]
    concepts = np.unique(np.concatenate(names))
    cosine = np.full((len(concepts), len(concepts)), np.nan, np.float32)
    rows, columns = (np.searchsorted(concepts, one) for one in names)
    cosine[rows, columns] = part["cosine"].to_numpy()
    return Entanglement(layer, concepts.tolist(), cosine)

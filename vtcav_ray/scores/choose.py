"""Choose cells of a finished run, for the commands that run the model once more on some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vtcav_ray.cavs.plan import RANDOM
from vtcav_ray.errors import ConfigError
from vtcav_ray.runs.run import Run
from vtcav_ray.stages import ANSWER
from vtcav_ray.tables import CELL_KEY


class CellKey(NamedTuple):
    """A cell of `scores`."""

    class_: str
    layer: str
    concept: str
    against: str


@dataclass(frozen=True)
class Wanted:
    """The cells to choose; an empty list means any.

    Attributes:
        classes, layers, concepts, against: filters.
        significant: only significant cells.
        measured: only cells with a finite z of the effect.
        most: maximum number of cells, those with the largest |z|; None: all.
    """

    classes: Sequence[str] = ()
    layers: Sequence[str] = ()
    concepts: Sequence[str] = ()
    against: str = RANDOM
    significant: bool = False
    measured: bool = False
    most: int | None = None


def choose(run: Run, wanted: Wanted) -> tuple[CellKey, ...]:
    """Return the wanted cells of a run's scores, those with the largest |z| of the effect first.

    Raises:
        ConfigError: a name that the scores don't have, or no such cell.
    """
    table = run.table("scores", columns=[*CELL_KEY, "z", "significant"])
    scores = [row for row in table.to_pylist() if row["layer"] != ANSWER]  # there, no activation can be changed
    for option, names in (("class", wanted.classes), ("layer", wanted.layers), ("concept", wanted.concepts)):
        known = sorted({row[option] for row in scores})
        if unknown := [name for name in names if name not in known]:
            raise ConfigError(f"--{option} {unknown[0]!r}: the run's scores have {', '.join(known)}.")
    fit = [row for row in scores if _fits(row, wanted)]
    if not fit:
        what = "comparison with an effect" if wanted.measured else "comparison"
        raise ConfigError(
            f"No {what} against {wanted.against!r} matches these options. `vtcav table {run.url} scores` lists all "
            "comparisons."
        )
    if wanted.significant:
        fit = [row for row in fit if row["significant"]]
        if not fit:
            raise ConfigError("None of these comparisons is significant. `--cells all` takes all of them.")
    fit.sort(key=lambda row: (-_size(row["z"]), *(row[name] for name in CELL_KEY)))
    return tuple(CellKey(*(row[name] for name in CELL_KEY)) for row in fit[: wanted.most])


def _fits(row: Mapping[str, Any], wanted: Wanted) -> bool:
    filters = (("class", wanted.classes), ("layer", wanted.layers), ("concept", wanted.concepts))
    if row["against"] != wanted.against or any(names and row[name] not in names for name, names in filters):
        return False
    return not wanted.measured or (row["z"] is not None and bool(np.isfinite(row["z"])))


def _size(z: float | None) -> float:
    return abs(z) if z is not None and np.isfinite(z) else 0.0

"""What `vtcav patch` has to compute: the cells, the pool clips of their two sides, and the reference clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from vtcav_ray.activations.reference import reference_videos
from vtcav_ray.cavs.plan import RANDOM
from vtcav_ray.cavs.stage import POOL_COLUMNS, pool_of, read_plan
from vtcav_ray.clips.usable import AcceptedRows
from vtcav_ray.config import Config
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.runs.run import Run
from vtcav_ray.scores.cells import find_cells
from vtcav_ray.store.commits import StageFolder
from vtcav_ray.tables import CELL_KEY

MOST = 24
NO_REFERENCE = (
    "The run has no reference set, into which concepts could be patched: its clips of all classes failed, were left "
    "out, or activations.reference is 0. Run it again with activations.reference of at least 1."
)
REFERENCE_COLUMN = (
    "The run's activations are of an older version, without a reference set. Run it again, then patch it."
)


class CellKey(NamedTuple):
    """A cell of `scores`."""

    class_: str
    layer: str
    concept: str
    against: str


@dataclass(frozen=True)
class Wanted:
    """The cells to patch; an empty list means any.

    Attributes:
        classes, layers, concepts, against: filters.
        significant: only cells whose concept effect is significant, at most `most`, the largest |z| first. False: all.
        most: see `significant`.
    """

    classes: Sequence[str] = ()
    layers: Sequence[str] = ()
    concepts: Sequence[str] = ()
    against: str = RANDOM
    significant: bool = True
    most: int = MOST


@dataclass(frozen=True)
class Chosen:
    """The cells in a fixed order, how they were chosen, and the maximum number of reference videos (None: all)."""

    cells: tuple[CellKey, ...]
    significant: bool
    limit_reference: int | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.layer for cell in self.cells))

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({cell.class_ for cell in self.cells}))


@dataclass(frozen=True)
class Side:
    """Pool clips of one side of a comparison: ids, and the source video of each."""

    clips: tuple[str, ...]
    videos: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """The two sides of (concept, against) at one layer. `paired`: each clip's twin is at the same place."""

    concept: Side
    other: Side
    paired: bool


def choose(run: Run, wanted: Wanted) -> tuple[CellKey, ...]:
    """Return the cells of a run's scores that are wanted, the largest |z| of the concept effect first.

    Raises:
        ConfigError: a name that the scores don't have, no such cell, or sets of clips that depend on labels.
    """
    for key in ("random_labels", "concept_labels"):
        if (value := getattr(run.config.clips, key)) != "any":
            raise ConfigError(
                f"The run has clips.{key}: {value}, and patch effects compare clips of any label. Patch a run with "
                f"clips.{key}: any; it uses the same clips and activations."
            )
    scores = run.table("scores", columns=[*CELL_KEY, "effect_z", "significant"]).to_pylist()
    for option, names in (("class", wanted.classes), ("layer", wanted.layers), ("concept", wanted.concepts)):
        known = sorted({row[option] for row in scores})
        if unknown := [name for name in names if name not in known]:
            raise ConfigError(f"--{option} {unknown[0]!r}: the run's scores have {', '.join(known)}.")
    fit = [
        row
        for row in scores
        if row["against"] == wanted.against
        and (not wanted.classes or row["class"] in wanted.classes)
        and (not wanted.layers or row["layer"] in wanted.layers)
        and (not wanted.concepts or row["concept"] in wanted.concepts)
    ]
    if not fit:
        raise ConfigError(
            f"No cell against {wanted.against!r} matches these options. `vtcav table {run.url} scores` lists all cells."
        )
    if wanted.significant:
        fit = [row for row in fit if row["significant"]]
        if not fit:
            raise ConfigError("None of these cells is significant. `--cells all` takes all of them.")
    fit.sort(key=lambda row: (-_size(row["effect_z"]), *(row[name] for name in CELL_KEY)))
    return tuple(
        CellKey(*(row[name] for name in CELL_KEY)) for row in fit[: wanted.most if wanted.significant else None]
    )


def _size(z: float | None) -> float:
    return abs(z) if z is not None and np.isfinite(z) else 0.0


def comparisons(activations: AcceptedRows, layer: str, config: Config) -> dict[tuple[str, str], Comparison]:
    """Return (concept, against) -> the clips of both sides, as the stage `scores` compares them."""
    pool = activations.read("activations", columns=("clip_id", *POOL_COLUMNS), layer=layer)
    assert pool is not None, "there are scores of this layer"
    clips, videos = pool["clip_id"].to_pylist(), pool["video_id"].to_pylist()

    def side(rows: np.ndarray) -> Side:
        return Side(tuple(clips[i] for i in rows), tuple(videos[i] for i in rows))

    jobs = read_plan(activations, layer, config, None).jobs
    return {
        (cell.concept, cell.against): Comparison(side(cell.concept_rows), side(cell.other_rows), cell.paired)
        for cell in find_cells(pool_of(pool, None), clips, jobs)
    }


def pool_clips(chosen: Chosen, layer: str, sides: Mapping[tuple[str, str], Comparison]) -> dict[str, str]:
    """Return clip id -> source video of all clips whose responses at this layer are needed, sorted by id."""
    video_of: dict[str, str] = {}
    for cell in chosen.cells:
        if cell.layer == layer:
            one = sides[cell.concept, cell.against]
            for side in (one.concept, one.other):
                video_of.update(zip(side.clips, side.videos, strict=True))
    return dict(sorted(video_of.items()))


def read_reference(activations: AcceptedRows, layer: str, limit: int | None, seed: int) -> pa.Table:
    """Return the rows of `gradients` at the reference clips of a layer.

    Args:
        limit: maximum number of source videos, spread evenly over the classes; None: all.
        seed: of the run.

    Raises:
        ConfigError: the run has no reference set.
    """
    table = activations.read("gradients", layer=layer)
    if table is None:
        raise ConfigError(NO_REFERENCE)
    if "reference" not in table.column_names:
        raise ConfigError(REFERENCE_COLUMN)
    table = table.filter(table["reference"])
    if not table.num_rows:
        raise ConfigError(NO_REFERENCE)
    if limit is None:
        return table
    own = activations.read("activations", columns=("video_id", "set", "name"), layer=layer)
    assert own is not None, "there are gradients of this layer"
    names = zip(own["video_id"].to_pylist(), own["set"].to_pylist(), own["name"].to_pylist(), strict=True)
    there = set(table["video_id"].to_pylist())
    kept = reference_videos({v: name for v, set_, name in names if set_ == "class" and v in there}, limit, seed)
    return table.filter(pa.array([video in kept for video in table["video_id"].to_pylist()], pa.bool_()))


def clip_shards(clips: StageFolder, wanted: set[str]) -> dict[str, list[str]]:
    """Return shard of the table `clips` -> those of its clips that are wanted, sorted.

    Raises:
        StageError: a clip is in no shard.
    """
    found: dict[str, list[str]] = {}
    for shard, part in clips.iter_tables("clips", columns=["clip_id"]):
        if here := sorted(wanted & set(part["clip_id"].to_pylist())):
            found[shard] = here
    if missing := sorted(wanted - {clip for here in found.values() for clip in here}):
        raise StageError(f"The reference clip {missing[0]} is not in the table `clips`. Run the pipeline again.")
    return found


def cell_rows(scores: pa.Table) -> dict[CellKey, dict[str, Any]]:
    """Return the rows of `scores` by cell."""
    return {CellKey(*(row[name] for name in CELL_KEY)): row for row in scores.to_pylist()}

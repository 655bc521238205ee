"""The scores table as NumPy columns, with the status of each cell: the statement that its figures allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray.registry import CONCEPT_KINDS, MOTION_CONTROLS
from vtcav_ray.stages import ANSWER

GROUP_WORDS: Mapping[str, str] = {
    "dynamic": "moving",
    "static": "still",
    "control": "motion control",
    "context": "in full frame",
    "other": "other",
}


class Status(IntEnum):
    """The statement that a cell's figures allow. The page uses the same numbers: keep assets/marks.js in step."""

    RAISES = 0  # significant, and the logit goes up
    LOWERS = 1  # significant, and the logit goes down
    NOT_SHOWN = 2  # readable, and neither called nor shown to have no effect: not decided
    NOT_LEARNABLE = 3  # not significant; a classifier separates it from random clips no better than by chance
    UNDECIDED = 4  # no figure can be read
    NO_EFFECT = 5  # the interval lies inside +- the smallest effect of interest


STATUS_WORDS: Mapping[Status, str] = {
    Status.RAISES: "raises the logit",
    Status.LOWERS: "lowers the logit",
    Status.NOT_SHOWN: "not decided",
    Status.NOT_LEARNABLE: "not learnable",
    Status.UNDECIDED: "no figure",
    Status.NO_EFFECT: "no effect",
}


@dataclass(frozen=True)
class Column:
    """A column of the matrix: a concept and what it is compared with.

    Attributes:
        concept: `<name>/<kind>`.
        name, kind: its two parts.
        group: static, dynamic, context, control or other.
        against: column `against` of the scores table.
        contrast: `random`, `rest` (of its group) or `pair` (another concept).
    """

    concept: str
    name: str
    kind: str
    group: str
    against: str
    contrast: str

    @property
    def keeps_movement(self) -> bool:
        """Whether it is compared with clips that move in the same way, such as its moving outline alone."""
        other = self.against.rpartition("/")[2]
        return self.contrast == "pair" and other in MOTION_CONTROLS and bool(MOTION_CONTROLS[other].keeps_movement)


@dataclass(frozen=True)
class Texts:
    """N strings with few distinct values: `values[code_N[i]]` is the i-th. Null is the empty string."""

    values: Sequence[str]
    code_N: np.ndarray

    def __getitem__(self, i: int) -> str:
        return self.values[self.code_N[i]]

    def equal(self, value: str) -> np.ndarray:
        """Return bool [N]: the string equals `value`."""
        return np.array([v == value for v in self.values], bool)[self.code_N]


@dataclass(frozen=True)
class ScoreCells:
    """The N cells of a scores table.

    Attributes:
        classes, layers, columns: the values that the codes below index.
        class_N, layer_N, column_N: int32 codes.
        numbers: column of the scores table -> float64 [N]; NaN: null.
        texts: column of the scores table -> its strings.
        status_N: int8 values of Status.
    """

    classes: Sequence[str]
    layers: Sequence[str]
    columns: Sequence[Column]
    class_N: np.ndarray
    layer_N: np.ndarray
    column_N: np.ndarray
    numbers: Mapping[str, np.ndarray]
    texts: Mapping[str, Texts]
    status_N: np.ndarray

    def __len__(self) -> int:
        return len(self.class_N)

    def of(self, status: Status) -> np.ndarray:
        """Return bool [N]: the cell has this status."""
        return self.status_N == status

    @property
    def significant_N(self) -> np.ndarray:
        return self.of(Status.RAISES) | self.of(Status.LOWERS)

    @property
    def degenerate_N(self) -> np.ndarray:
        """bool [N]: the layer is degenerate, so the sign count carries no information."""
        return self.numbers["degenerate"] == 1

    @property
    def answer_N(self) -> np.ndarray:
        """bool [N]: the cell is of the model's own answer, not of a layer."""
        return np.array([layer == ANSWER for layer in self.layers], bool)[self.layer_N]

    def contrast(self, name: str) -> np.ndarray:
        """Return bool [N]: the cell is against `random`, the `rest` of its group, or in a `pair`."""
        return np.array([c.contrast == name for c in self.columns], bool)[self.column_N]

    def group(self, name: str) -> np.ndarray:
        """Return bool [N]: the cell's concept is of this group."""
        return np.array([c.group == name for c in self.columns], bool)[self.column_N]

    def kind(self, name: str) -> np.ndarray:
        """Return bool [N]: the cell's concept is of this kind."""
        return np.array([c.kind == name for c in self.columns], bool)[self.column_N]


def read_cells(scores: pa.Table, layers: Sequence[str]) -> ScoreCells:
    """Read a scores table.

    Args:
        scores: rows of `tables.SCORES`; nulls anywhere are allowed.
        layers: in display order; must include every layer of the table.
    """
    numbers, texts = {}, {}
    for field in scores.schema:
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            texts[field.name] = _texts(scores[field.name])
        elif pa.types.is_floating(field.type) or pa.types.is_integer(field.type) or pa.types.is_boolean(field.type):
            numbers[field.name] = _numbers(scores[field.name])
    classes, layer, concept, against, kind = (texts.pop(c) for c in ("class", "layer", "concept", "against", "kind"))
    # A column is a (concept, against) pair; its first row gives the kind.
    pair_N = concept.code_N.astype(np.int64) * max(1, len(against.values)) + against.code_N
    _, first, column_N = np.unique(pair_N, return_index=True, return_inverse=True)
    order = {name: i for i, name in enumerate(layers)}
    return ScoreCells(
        classes=classes.values,
        layers=list(layers),
        columns=[_column(concept[i], against[i], kind[i]) for i in first],
        class_N=classes.code_N,
        layer_N=np.array([order[name] for name in layer.values], np.int32)[layer.code_N],
        column_N=column_N.astype(np.int32),
        numbers=numbers,
        texts=texts,
        status_N=_status(numbers, texts),
    )


def _texts(column: pa.ChunkedArray) -> Texts:
    if len(column) == 0:
        return Texts([], np.zeros(0, np.int32))
    coded = pc.fill_null(column, "").combine_chunks().dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    return Texts(coded.dictionary.to_pylist(), coded.indices.to_numpy().astype(np.int32))


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy()


def _column(concept: str, against: str, kind: str) -> Column:
    name, _, ending = concept.rpartition("/")
    kind = kind or ending
    contrast = "random" if against.startswith("random") else "rest" if against.startswith("rest of ") else "pair"
    return Column(concept, name or concept, kind, group_of(kind), against, contrast)


def group_of(kind: str) -> str:
    """Return static, dynamic, context, control or other.

    A kind that is not known here, such as one of a package that is not installed, is a control if its name has that of
    one in it, and `other` otherwise.
    """
    for registry in (CONCEPT_KINDS, MOTION_CONTROLS):
        if kind in registry:
            group: str = registry[kind].group
            return group
    return "control" if any(control in kind for control in MOTION_CONTROLS) else "other"


def _status(numbers: Mapping[str, np.ndarray], texts: Mapping[str, Texts]) -> np.ndarray:
    effect = numbers["effect"]
    status = np.full(len(effect), Status.NOT_SHOWN, np.int8)
    unreadable = np.isnan(effect) | texts["decided_by"].equal("none")
    significant = (numbers["significant"] == 1) & ~unreadable
    status[unreadable] = Status.UNDECIDED
    status[numbers["learnable"] == 0] = Status.NOT_LEARNABLE
    if "negligible" in numbers:  # not in the tables of older runs
        status[(numbers["negligible"] == 1) & ~unreadable] = Status.NO_EFFECT
    status[significant & (effect > 0)] = Status.RAISES
    status[significant & (effect < 0)] = Status.LOWERS
    return status

"""Previews of the class examples, and the one of each class that its clearest concept drives most and least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from vtcav_ray.clips.usable import AcceptedRows
from vtcav_ray.report.packed_tables import codes_of
from vtcav_ray.report.previews import ClipHead, Preview, read_previews
from vtcav_ray.report.score_cells import ScoreCells, Status
from vtcav_ray.report.verdicts import Verdict

# Up to this many class examples, each has a preview. Beyond, only the most and the least driven of each class have one:
# shorter, smaller, and up to a number of bytes. Then a report of 400 classes stays under 30 MB.
MAX_EXAMPLES = 200
MANY_MAX_SIDE = 64
MANY_MAX_FRAMES = 8
MAX_BYTES = 4_000_000
_READ_TOGETHER = 64  # clips whose frames are read before the bytes are counted


@dataclass(frozen=True)
class Driven:
    """The examples of a class that one concept drives most and least, in the direction of its effect.

    Attributes:
        concept: `<name>/<kind>`.
        layer: where the sensitivities were taken.
        most, least: video IDs.
        most_by, least_by: their sensitivities, logits per unit of the activation.
    """

    concept: str
    layer: str
    most: str
    least: str
    most_by: float
    least_by: float


@dataclass(frozen=True)
class Examples:
    """What a report shows of the class examples.

    Attributes:
        driven: class -> its most and least driven examples; a class without a finding is left out.
        previews: class -> video ID -> preview.
        left_out: number of examples without a preview.
    """

    driven: Mapping[str, Driven] = field(default_factory=dict)
    previews: Mapping[str, Mapping[str, Preview]] = field(default_factory=dict)
    left_out: int = 0

    @property
    def note(self) -> str:
        """A sentence for the reader if examples have no preview."""
        if not self.left_out:
            return ""
        shown = sum(len(of) for of in self.previews.values())
        return (
            f"To keep this file small, {shown:,} of {shown + self.left_out:,} class examples have a preview: "
            "the most and the least driven of each class, as far as they fit."
        )


def find_driven(cells: ScoreCells, verdicts: Sequence[Verdict], sensitivities: pa.Table | None) -> dict[str, Driven]:
    """Return class -> the examples that the concept of its clearest finding drives most and least.

    Args:
        cells: of the run.
        verdicts: one per class.
        sensitivities: class, layer, concept, video_id, sensitivity; None: not known.
    """
    if sensitivities is None or not sensitivities.num_rows:
        return {}
    chosen = {one.name: row for one in verdicts if (row := _readable(cells, one)) is not None}
    concepts = [column.concept for column in cells.columns]
    wanted = {name: (int(cells.layer_N[row]), concepts[cells.column_N[row]]) for name, row in chosen.items()}
    names = list(wanted)
    layers = np.array([layer for layer, _ in wanted.values()], np.int64)
    unique = list(dict.fromkeys(concepts))
    concept_of = np.array([unique.index(concept) for _, concept in wanted.values()], np.int64)
    class_N = codes_of(sensitivities["class"], names)
    known = np.flatnonzero(class_N >= 0)
    class_n = class_N[known]
    matches = (codes_of(sensitivities["layer"], cells.layers)[known] == layers[class_n]) & (
        codes_of(sensitivities["concept"], unique)[known] == concept_of[class_n]
    )
    rows = known[matches]
    value_N = sensitivities["sensitivity"].to_numpy()
    found: dict[str, Driven] = {}
    for k, name in enumerate(names):
        of_class = rows[(class_N[rows] == k) & np.isfinite(value_N[rows])]
        if len(of_class) < 2:
            continue
        sign = -1 if cells.status_N[chosen[name]] == Status.LOWERS else 1
        most, least = (int(of_class[np.argmax(s * sign * value_N[of_class])]) for s in (1, -1))
        layer, concept = wanted[name]
        most_video, least_video = (sensitivities["video_id"][i].as_py() for i in (most, least))
        by = float(value_N[most]), float(value_N[least])
        found[name] = Driven(concept, cells.layers[layer], most_video, least_video, *by)
    return found


def _readable(cells: ScoreCells, verdict: Verdict) -> int | None:
    """Return the row of the clearest finding where examples differ: not where the gradient is the same for all."""
    for lead in verdict.leads:
        concept = cells.columns[cells.column_N[lead]].concept
        same = np.array([column.concept == concept for column in cells.columns])[cells.column_N]
        rows = np.flatnonzero(same & (cells.class_N == cells.class_N[lead]) & ~cells.degenerate_N)
        rows = rows[cells.status_N[rows] == cells.status_N[lead]]
        if lead in rows:
            return lead
        if len(rows):
            return int(rows[np.argmax(np.abs(np.nan_to_num(cells.numbers["z"][rows])))])
    return None


def read_examples(folder: AcceptedRows, heads: Sequence[ClipHead], driven: Mapping[str, Driven]) -> Examples:
    """Read previews of the class examples, one per source video.

    Args:
        folder: of the clips.
        heads: their metadata.
        driven: class -> its most and least driven examples.
    """
    of_video: dict[tuple[str, str], ClipHead] = {}
    for head in heads:
        if head.set == "class":
            of_video.setdefault((head.name, head.video_id), head)
    wanted = list(of_video)
    if len(wanted) <= MAX_EXAMPLES:
        made = read_previews(folder, list(of_video.values()))
    else:
        pairs = [(name, video) for name, one in driven.items() for video in (one.most, one.least)]
        made = _read_some(folder, [of_video[pair] for pair in dict.fromkeys(pairs) if pair in of_video])
    previews: dict[str, dict[str, Preview]] = {}
    for head, preview in made.items():
        previews.setdefault(head.name, {})[head.video_id] = preview
    return Examples(driven, previews, len(wanted) - len(made))


def _read_some(folder: AcceptedRows, heads: Sequence[ClipHead]) -> dict[ClipHead, Preview]:
    """Read small previews until they take MAX_BYTES."""
    made: dict[ClipHead, Preview] = {}
    taken = 0
    for start in range(0, len(heads), _READ_TOGETHER):
        part = read_previews(folder, heads[start : start + _READ_TOGETHER], MANY_MAX_SIDE, MANY_MAX_FRAMES)
        for head in heads[start : start + _READ_TOGETHER]:
            taken += len(part[head].image)
            if taken > MAX_BYTES:
                return made
            made[head] = part[head]
    return made

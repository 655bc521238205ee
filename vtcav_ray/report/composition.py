"""The report's section on labels: which classes a concept's clips come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vtcav_ray.pages.wording import whole
from vtcav_ray.registry import REPORT_SECTIONS
from vtcav_ray.report.data import ReportData
from vtcav_ray.report.score_cells import ScoreCells
from vtcav_ray.report.sections import Section
from vtcav_ray.rows import CompositionRow, read_rows

MAX_LABELS = 5  # shown of a concept; the others are counted
NOTES = {
    ("random_labels", "matched"): "Random clips have the concept's own labels (clips.random_labels: matched).",
    ("concept_labels", "other"): (
        "The effects on a class leave out the videos of this class, of the concept and of the random clips "
        "(clips.concept_labels: other); the shares here are of all videos."
    ),
}


@dataclass(frozen=True)
class ConceptLabels:
    """A line of the table.

    Attributes:
        concept: `<name>/<kind>`.
        videos: its source videos.
        labels: the most common ones, with their shares among the concept's and the random videos.
        no_contrast: labels that no random video has, or "".
    """

    concept: str
    videos: int
    labels: str
    no_contrast: str


@REPORT_SECTIONS.register("labels")
class LabelsSection(Section):
    """The labels of each concept's videos."""

    title, heading = "Labels", "Labels of the concepts' videos"
    template = "labels.html"

    def values(self, data: ReportData, cells: ScoreCells) -> Mapping[str, Any]:
        rows = [] if data.composition is None else read_rows(data.composition, CompositionRow)
        by_concept: dict[str, list[CompositionRow]] = {}
        for row in rows:
            by_concept.setdefault(row.concept, []).append(row)
        clips = data.config.get("clips", {})
        return {
            "concepts": [line(of) for _, of in sorted(by_concept.items())],
            "notes": [text for (key, value), text in NOTES.items() if clips.get(key) == value],
        }


def line(rows: Sequence[CompositionRow]) -> ConceptLabels:
    """Return the line of one concept: its most common labels first, and the others together."""
    concept, random = sum(row.n_concept for row in rows), sum(row.n_random for row in rows)
    present = sorted((row for row in rows if row.n_concept), key=lambda row: (_together(row), -row.n_concept))
    shown, rest = present[:MAX_LABELS], present[MAX_LABELS:]
    parts = [(row.label, row.n_concept, row.n_random) for row in shown]
    if rest:
        number = sum(_together(row) or 1 for row in rest)
        parts.append((f"{number} others", sum(r.n_concept for r in rest), sum(r.n_random for r in rest)))
    alone = [row.label for row in present if row.no_contrast]
    return ConceptLabels(
        concept=rows[0].concept,
        videos=concept,
        labels=", ".join(
            f"{label} {_percent(own, concept)} ({_percent(other, random)})" for label, own, other in parts
        ),
        no_contrast=", ".join(alone[:MAX_LABELS])
        + (f" and {len(alone) - MAX_LABELS} more" if len(alone) > MAX_LABELS else ""),
    )


def _percent(part: int, of: int) -> str:
    return f"{whole(100 * part / of)} %" if of else "–"


def _together(row: CompositionRow) -> int:
    """Return how many labels a row counts together (`<number> other labels`); 0: one label."""
    number, _, rest = row.label.partition(" ")
    return int(number) if rest == "other labels" and number.isdecimal() else 0

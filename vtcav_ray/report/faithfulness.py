"""The report's section on the checks of `vtcav faithful`: one answer per check, and the figures behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vtcav_ray.pages.wording import count, signed
from vtcav_ray.registry import REPORT_SECTIONS
from vtcav_ray.report.data import ReportData
from vtcav_ray.report.score_cells import ScoreCells
from vtcav_ray.report.sections import Section

MAX_ROWS = 200
# Figures that do not tell true concepts from false in worlds with planted answers, so they are in the table only:
# `benchmarks/faithful_truth.py`, and docs/faithful.md, which has their areas under ROC.
LEFT_OUT = ("necessity", "deletion and insertion", "same sign to first order", "effects with shuffled weights")
HALVES = "correlation of halves"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class CheckAnswer:
    """A check's answer in a sentence."""

    check: str
    text: str


@REPORT_SECTIONS.register("checks")
class ChecksSection(Section):
    """Checks that can show the explanation to be wrong."""

    title, heading = "Checks", "Checks of the explanation"
    template = "checks.html"

    def shown(self, data: ReportData) -> bool:
        """Return whether the run has the checks."""
        return data.faithfulness is not None

    def values(self, data: ReportData, cells: ScoreCells) -> Mapping[str, Any]:
        rows = [] if data.faithfulness is None else data.faithfulness.to_pylist()
        changes = real_changes(rows)
        return {
            "answers": answers(rows),
            "stability": sorted(_of(rows, "stability", HALVES), key=lambda row: -row["value"]),
            "changes": changes[:MAX_ROWS],
            "more": max(0, len(changes) - MAX_ROWS),
            "left_out": LEFT_OUT,
        }


def answers(rows: Sequence[Row]) -> list[CheckAnswer]:
    """Return the answers, in sentences, of those checks of the table `faithfulness` that tell true concepts from false.

    Shuffled weights are mentioned only if the explanation fails there.
    """
    found = [
        CheckAnswer("stability", _stability(_of(rows, "stability", HALVES))),
        CheckAnswer("real change", _real_change(real_changes(rows))),
        CheckAnswer("layers", _layers(_of(rows, "layers", "first decisive"))),
        CheckAnswer("randomised weights", " ".join(_notes(rows, "randomised weights"))),
    ]
    return [one for one in found if one.text]


def real_changes(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return class, layer, concept, the change to first order and the real one with its interval, largest first."""
    predicted = {_cell(row): row["value"] for row in _of(rows, "first order", "first-order change")}
    found = [{**row, "predicted": predicted.get(_cell(row))} for row in _of(rows, "first order", "real change")]
    return sorted(found, key=lambda row: -abs(row["value"]))


def _cell(row: Row) -> tuple[Any, ...]:
    return row["class"], row["layer"], row["concept"]


def _notes(rows: Sequence[Row], check: str) -> list[str]:
    return [row["note"] for row in rows if row["check"] == check and row["note"]]


def _of(rows: Iterable[Row], check: str, measure: str) -> list[Row]:
    return [row for row in rows if row["check"] == check and row["measure"] == measure and row["value"] is not None]


def _stability(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    best, worst = max(rows, key=lambda row: row["value"]), min(rows, key=lambda row: row["value"])
    return (
        f"Between halves of the videos, effects correlate from {signed(worst['value'])} ({worst['concept']}) to "
        f"{signed(best['value'])} ({best['concept']}). What does not repeat is not there."
    )


def _real_change(changes: Sequence[Row]) -> str:
    if not changes:
        return ""
    most = changes[0]
    text = (
        f"Moving a class's clips by a concept's whole shift changes it most here: {most['class']} by {most['concept']} "
        f"at {most['layer']}, {signed(most['value'])} logits"
    )
    text += "." if most["predicted"] is None else f" (to first order {signed(most['predicted'])})."
    if differs := sum(1 for row in changes if row["note"]):
        text += f" In {count(differs, 'comparison')} the real change has the other sign: read the patch effect."
    return text


def _layers(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    first: dict[str, int] = {}
    for row in sorted(rows, key=lambda row: row["value"]):
        first[row["layer"]] = first.get(row["layer"], 0) + 1
    parts = ", ".join(f"{number} at {layer}" for layer, number in first.items())
    return f"Layer at which a concept first moves a class, also beyond the class's own label: {parts}."

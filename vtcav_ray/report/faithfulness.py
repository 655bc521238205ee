"""The report's section on the checks of `vtcav faithful`: one answer per check, and the figures behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vtcav_ray.pages.wording import count, percent, signed
from vtcav_ray.registry import REPORT_SECTIONS
from vtcav_ray.report.data import ReportData
from vtcav_ray.report.score_cells import ScoreCells
from vtcav_ray.report.sections import Section

LEVEL = 0.05
MAX_ROWS = 200
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
        necessity = [row for row in rows if row["check"] == "necessity" and row["measure"] == "change"]
        necessity.sort(key=lambda row: (row["p"] is None, row["p"], row["value"]))
        stability = [row for row in rows if row["measure"] == "correlation of halves"]
        return {
            "answers": answers(rows),
            "necessity": necessity[:MAX_ROWS],
            "more": max(0, len(necessity) - MAX_ROWS),
            "stability": sorted(stability, key=lambda row: -row["value"]),
            "areas": [row for row in rows if row["measure"] == "area beyond random directions"][:MAX_ROWS],
            "orders": _by_layer(rows, "first order", ("slope", "correlation", "same sign")),
        }


def answers(rows: Sequence[Row]) -> list[CheckAnswer]:
    """Return the answer of each check that the table `faithfulness` has, in sentences."""
    found = [
        CheckAnswer("necessity", _necessity(_of(rows, "necessity", "change"))),
        CheckAnswer("deletion", _deletion(_of(rows, "deletion", "area beyond random directions"))),
        CheckAnswer("randomised weights", _randomised(rows)),
        CheckAnswer("stability", _stability(_of(rows, "stability", "correlation of halves"))),
        CheckAnswer("first order", _first_order(rows)),
        CheckAnswer("layers", _layers(_of(rows, "layers", "first decisive"))),
    ]
    return [one for one in found if one.text]


def _of(rows: Iterable[Row], check: str, measure: str) -> list[Row]:
    return [row for row in rows if row["check"] == check and row["measure"] == measure and row["value"] is not None]


def _necessity(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    needed = [row for row in rows if row["p"] is not None and row["p"] <= LEVEL]
    first = f"Erasing a concept's direction lowers its class more than random directions do (p ≤ {LEVEL}) in "
    text = f"{first}{len(needed)} of {count(len(rows), 'comparison')}."
    if needed:
        most = min(needed, key=lambda row: row["value"])
        text += (
            f" The most: {most['class']} without {most['concept']} at {most['layer']}, {signed(most['value'])} logits "
            f"(random directions {signed(most['random'])})."
        )
    return text


def _deletion(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    beyond = sum(1 for row in rows if row["ci_low"] is not None and row["ci_low"] > 0)
    return (
        f"Erasing a class's concepts one after the other lowers it more than as many random directions in {beyond} of "
        f"{count(len(rows), 'pair')} of class and layer."
    )


def _randomised(rows: Sequence[Row]) -> str:
    called = _of(rows, "randomised weights", "called")
    correlations = _of(rows, "randomised weights", "correlation")
    if not called:
        return ""
    least, most = (f(row["value"] for row in correlations) for f in (min, max))
    whole = [row for row in called if row["layer"] == "whole"]
    text = f"Effects with shuffled weights correlate with the run's by {signed(least)} to {signed(most)}."
    if whole:
        text = f"With all weights shuffled, {int(whole[0]['value'])} of {whole[0]['n']} effects are called. {text}"
    return text


def _stability(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    best, worst = max(rows, key=lambda row: row["value"]), min(rows, key=lambda row: row["value"])
    return (
        f"Between halves of the videos, effects correlate from {signed(worst['value'])} ({worst['concept']}) to "
        f"{signed(best['value'])} ({best['concept']}). Do not rely on an effect that does not repeat."
    )


def _first_order(rows: Sequence[Row]) -> str:
    layers = _by_layer(rows, "first order", ("slope", "correlation", "same sign"))
    if not layers:
        return ""
    parts = [
        f"{layer}: slope {values['slope']:.2f}, same sign in {percent(values['same sign'])}"
        for layer, values in layers.items()
        if values.keys() >= {"slope", "same sign"}
    ]
    differs = sum(1 for row in rows if row["check"] == "first order" and row["note"])
    text = f"Real changes against first-order ones: {'; '.join(parts)}."
    if differs:
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


def _by_layer(rows: Sequence[Row], check: str, measures: Sequence[str]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["check"] == check and row["measure"] in measures and row["value"] is not None:
            found.setdefault(row["layer"], {})[row["measure"]] = row["value"]
    return found

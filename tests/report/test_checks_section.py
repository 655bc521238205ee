"""The report's answers from the table `faithfulness`, and what it leaves out."""

from __future__ import annotations

from typing import Any

from vtcav_ray.pages import render
from vtcav_ray.report.data import ReportData
from vtcav_ray.report.faithfulness import ChecksSection, answers, real_changes
from vtcav_ray.rows import FaithfulnessRow, table_of
from vtcav_ray.tables import SCORES


def row(check: str, measure: str, value: float, **more: Any) -> dict[str, Any]:
    names = ("class", "layer", "concept", "ci_low", "ci_high", "random", "p", "n")
    return {"check": check, "measure": measure, "value": value, "note": "", **dict.fromkeys(names), **more}


UP, CUP = {"class": "lift", "concept": "moving up/context"}, {"class": "lift", "concept": "cup/object"}
ROWS = [
    row("necessity", "change", -2.5, **UP, layer="late", p=0.016, random=-0.4),
    row("deletion", "area beyond the reverse order", 0.3, layer="late"),
    row("stability", "correlation of halves", 0.91, concept=UP["concept"], ci_low=0.85, ci_high=0.95),
    row("stability", "correlation of halves", -0.01, concept=CUP["concept"], ci_low=-0.4, ci_high=0.3),
    row("first order", "real change", 0.2, **CUP, layer="late", note="The real change has the other sign."),
    row("first order", "first-order change", -0.1, **CUP, layer="late"),
    row("first order", "real change", -3.0, **UP, layer="middle"),
    row("first order", "first-order change", -2.0, **UP, layer="middle"),
    row("first order", "same sign", 0.5, layer="late"),
    row("layers", "first decisive", 1.0, **UP, layer="middle"),
    row("randomised weights", "called", 0.0, layer="whole"),
]


def test_only_checks_that_tell_true_concepts_from_false_are_answered() -> None:
    found = {one.check: one.text for one in answers(ROWS)}
    assert list(found) == ["stability", "real change", "layers"]
    assert "-0.010 (cup/object) to +0.91 (moving up/context)" in found["stability"].replace("−", "-")
    assert found["layers"].endswith("1 at middle.")


def test_the_largest_real_change_comes_first_and_other_signs_are_counted() -> None:
    assert [(one["value"], one["predicted"]) for one in real_changes(ROWS)] == [(-3.0, -2.0), (0.2, -0.1)]
    text = {one.check: one.text for one in answers(ROWS)}["real change"].replace("−", "-")
    assert "lift by moving up/context at middle, -3.00 logits (to first order -2.00)" in text
    assert "In 1 comparison the real change has the other sign" in text


def test_shuffled_weights_are_mentioned_only_if_effects_survive_them() -> None:
    note = "3 of 64 effects are called although all weights are shuffled."
    failed = [*ROWS, row("randomised weights", "called", 3.0, layer="whole", note=note)]
    assert {one.check: one.text for one in answers(failed)}["randomised weights"] == note


def test_a_table_without_these_checks_has_no_answers() -> None:
    assert answers([ROWS[0]]) == []


def test_the_section_shows_real_changes_and_names_what_it_leaves_out() -> None:
    rows = [
        FaithfulnessRow(**{("class_" if name == "class" else name): value for name, value in one.items()})
        for one in ROWS
    ]
    data = ReportData(title="", scores=SCORES.empty_table(), faithfulness=table_of(rows, FaithfulnessRow))
    section = ChecksSection()
    page = render(section.room, section.template, id="checks", heading="", **section.values(data, None))  # type: ignore[arg-type]
    table = page[page.index("What a concept's whole shift changes") :]
    assert table.index("moving up/context") < table.index("cup/object")
    assert "The real change has the other sign." in table
    assert "necessity, deletion and insertion" in page
    assert "0.016" not in page  # the p of necessity

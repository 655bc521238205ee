"""The report's sentences on the checks, from rows that are written by hand."""

from __future__ import annotations

from typing import Any

from tests.helpers.report_factory import report_data
from vtcav_ray.report import build_report
from vtcav_ray.report.faithfulness import answers, real_changes
from vtcav_ray.rows import FaithfulnessRow, table_of

HALVES, FIRST, REAL = "correlation of halves", "first-order change", "real change"


def row(check: str, measure: str, value: float | None, concept: str = "up", **more: Any) -> FaithfulnessRow:
    more = {"class_": "lift", "layer": "late", **more}
    return FaithfulnessRow(check=check, measure=measure, value=value, concept=concept, **more)


ROWS = [
    row("stability", HALVES, 0.9, ci_low=0.8, ci_high=1.0),
    row("stability", HALVES, -0.25, "cup", ci_low=-0.5, ci_high=0.0),
    row("stability", HALVES, None, "ball"),
    row("first order", FIRST, 1.5), row("first order", REAL, -2.0, note="The other sign.", ci_low=-3.0, ci_high=-1.0),
    row("first order", FIRST, 0.25, "cup"), row("first order", REAL, 0.5, "cup", ci_low=0.1, ci_high=0.9),
    row("layers", "first decisive", 1.0), row("layers", "first decisive", 0.0, "cup", layer="early"),
    row("randomised weights", "called", 3.0, note="3 of 4 effects are called."),
]  # fmt: skip


def test_each_check_has_one_answer() -> None:
    found = {one.check: one.text for one in answers(table_of(ROWS, FaithfulnessRow).to_pylist())}
    assert list(found) == ["stability", "real change", "layers", "randomised weights"]
    assert "(cup) to" in found["stability"]
    assert "0.90 (up)" in found["stability"]
    assert "lift by up at late" in found["real change"]
    assert "(to first order" in found["real change"]
    assert "In 1 comparison the real change has the other sign" in found["real change"]
    assert found["layers"].endswith("1 at early, 1 at late.")
    assert found["randomised weights"] == "3 of 4 effects are called."
    assert answers([]) == []


def test_real_changes_are_sorted_by_size_beside_their_first_order() -> None:
    first, second = real_changes(table_of(ROWS, FaithfulnessRow).to_pylist())
    assert (first["value"], first["predicted"]) == (-2.0, 1.5)
    assert (second["value"], second["predicted"]) == (0.5, 0.25)


def test_the_report_has_the_section_only_with_checks() -> None:
    assert "Checks of the explanation" in build_report(report_data(faithfulness=table_of(ROWS, FaithfulnessRow)))
    assert "Checks of the explanation" not in build_report(report_data())

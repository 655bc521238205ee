"""The report's section on labels."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tests.helpers.report_factory import NASTY, report_data
from vtcav_ray import tables
from vtcav_ray.report import build_report
from vtcav_ray.report.composition import line
from vtcav_ray.rows import CompositionRow


def row(label: str, n_concept: int, n_random: int, *, no_contrast: bool = False) -> CompositionRow:
    return CompositionRow(
        concept="cup/spatial", label=label, n_concept=n_concept, n_random=n_random, no_contrast=no_contrast
    )


def test_the_most_common_labels_come_first_with_both_shares() -> None:
    found = line([row("drop", 1, 20), row("lift", 16, 20), row("pull", 0, 20), row("push", 3, 20)])
    assert found.videos == 20
    assert found.labels == "lift 80 % (25 %), push 15 % (25 %), drop 5 % (25 %)"
    assert found.no_contrast == ""


def test_labels_without_a_random_video_are_named() -> None:
    found = line([row("tennis", 9, 0, no_contrast=True), row("golf", 1, 10)])
    assert found.labels == "tennis 90 % (0 %), golf 10 % (100 %)"
    assert found.no_contrast == "tennis"


def test_four_hundred_labels_take_one_line() -> None:
    rows = [row(f"class {i:03d}", 30 - i, 1) for i in range(20)]
    rows.append(row("380 other labels", 40, 380, no_contrast=True))
    found = line(rows)
    videos = sum(30 - i for i in range(20)) + 40
    assert found.labels.startswith(f"class 000 {30 / videos * 100:.0f} % (0 %), class 001")
    assert found.labels.count(",") == 5
    assert "395 others" in found.labels
    assert len(found.labels) < 200
    assert found.no_contrast == "380 other labels"


@pytest.mark.slow
def test_the_section_is_on_the_page_and_says_which_clips_were_chosen() -> None:
    table = pa.Table.from_pylist(
        [{"concept": NASTY, "label": NASTY, "n_concept": 3, "n_random": 5, "no_contrast": False}],
        schema=tables.COMPOSITION,
    )
    page = build_report(report_data(composition=table))
    assert 'id="labels"' in page
    assert NASTY not in page
    assert "clips.concept_labels" not in page
    chosen = {"clips": {"concept_labels": "other", "random_labels": "matched"}}
    page = build_report(report_data(composition=table, config=chosen))
    assert "leave out the videos of this class" in page
    assert "Random clips have the concept&#39;s own labels" in page
    assert "This run has no table" in build_report(report_data())

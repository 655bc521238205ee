from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.helpers.report_factory import CLASSES, cell, table, world_rows
from vtcav_ray.cli.score_table import score_table_text


def shown(rows: list, width: int = 120, **options: object) -> str:
    sink = io.StringIO()
    console = Console(file=sink, width=width, force_terminal=False)
    console.print(score_table_text(table(rows), width=width, **options))
    return sink.getvalue()


def test_significant_cells_come_first_with_their_figures() -> None:
    rows = [cell(concept="dull/spatial"), cell(significant=True, effect=0.41, z=9.0, q=0.003)]
    first, second = shown(rows).splitlines()[1:3]
    assert first.split()[:1] == ["▲"]
    assert "cup up/spatiotemporal" in first
    assert "+0.41" in first
    assert "0.003" in first
    assert second.startswith("·")
    assert "dull/spatial" in second


def test_the_share_of_the_margin_is_shown_where_there_is_one_and_room() -> None:
    rows = [cell(significant=True, effect=0.41, share_of_margin=-0.137)]
    assert "−14\u00a0%" in shown(rows)
    assert "of margin  " not in shown(rows, width=80)
    assert "of margin  " not in shown([cell()])


def test_marks_are_explained_and_rows_left_out_are_counted() -> None:
    text = shown(world_rows(), max_rows=10)
    assert "▲ raises the logit (24)" in text
    assert "× not learnable (32)" in text
    assert "374 more rows" in text
    assert "°" in text
    assert len([line for line in text.splitlines() if line and line[0] in "▲▼·×?" and "raises" not in line]) == 10


def test_the_answer_has_no_score_and_says_why() -> None:
    none = {"tcav_score": None, "tcav_ci_low": None, "tcav_ci_high": None, "tcav_null_mean": None, "tcav_null_sd": None}
    text = shown([cell(layer="answer", significant=True, effect=3.78, R=0, **none), cell()])
    line = next(line for line in text.splitlines() if " answer " in line)
    assert "– ± –" not in text
    assert line.split()[-4:] == ["–", "none", "30", "–"]
    assert "answer: what the model answers, without a gradient and a TCAV score" in text
    assert "without a gradient" not in shown([cell()])


def test_every_class_is_shown_when_there_is_no_room_for_all() -> None:
    lines = shown(world_rows(), max_rows=8).splitlines()[1:9]
    assert [line.split()[1] for line in lines] == [name for name in CLASSES for _ in range(2)]
    assert all(line[0] in "▲▼" for line in lines)


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    text = shown([cell(**{"class": "a class with quite a long name", "concept": f"{'long ' * 10}/spatial"})], width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "+0.020" in text


def test_markup_and_control_characters_in_names_do_nothing() -> None:
    text = shown([cell(**{"class": "[bold]x[/bold]", "concept": "a\x1b[31mb/spatial"})])
    assert "[bold]x[/bold]" in text
    assert "\x1b" not in text
    assert "a�[31mb/spatial" in text


def test_null_figures_are_dashes_and_no_rows_is_a_sentence() -> None:
    row = cell(effect=None, ci_low=None, ci_high=None, q=None, tcav_score=None, tcav_null_sd=None)
    assert "–" in shown([row])
    assert "? no figure (1)" in shown([row])
    assert "No scores" in shown([])

"""A run's or an explanation's answer as text, as HTML for a notebook, and as a figure."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from vtcav_ray.exports.figures import effects, style
from vtcav_ray.pages.render import render
from vtcav_ray.report.depths import depths
from vtcav_ray.report.phrases import plain
from vtcav_ray.report.score_cells import ScoreCells
from vtcav_ray.report.verdicts import clearest, verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOM = "vtcav_ray.notebook"
MOST_CLASSES = 12  # in one cell of a notebook
MOST_NOTES = 5
NO_CLASS = "No class was tested."


def answer_text(rows: pa.Table) -> str:
    """Return rows of the table `verdicts` in sentences, one line per class."""
    return "\n".join(f"{row['class']}: {row['verdict']}" for row in rows.to_pylist()) or NO_CLASS


def answer_html(
    cells: ScoreCells,
    movements: Collection[str] = (),
    *,
    notes: Sequence[str] = (),
    link: tuple[str, str] | None = None,
) -> str:
    """Return the verdicts with their depth strips. Styles are inline: notebooks remove style elements.

    Args:
        cells: of a run or an explanation.
        movements: names of the concepts that are movements.
        notes: sentences to show below.
        link: address and text of the report.
    """
    every = verdicts(cells, movements)
    shown = clearest(every, MOST_CLASSES)
    answers = [(one.name, [plain(sentence) for sentence in one.sentences], depths(cells, one)) for one in shown]
    values = {
        "answers": answers,
        "more": len(every) - len(shown),
        "notes": notes[:MOST_NOTES],
        "more_notes": max(0, len(notes) - MOST_NOTES),
        "link": link,
        "no_class": NO_CLASS,
    }
    return render(ROOM, "answer.html", **values)


def figure_of(cells: ScoreCells, class_name: str | None, movements: Collection[str] = ()) -> Figure:
    """Draw the effects of a class; None: of the class with the clearest finding.

    Raises:
        ValueError: there is no such class.
    """
    if class_name is None:
        every = verdicts(cells, movements)
        if not every:
            raise ValueError(NO_CLASS)
        class_name = max(every, key=lambda one: one.surest).name
    if class_name not in cells.classes:
        raise ValueError(f"There is no class {class_name!r}. There are: {', '.join(cells.classes)}.")
    _show_figures()
    with style():
        figure = effects(cells, class_name)
    assert figure is not None, "every class has cells against random clips"
    figure.set_layout_engine("constrained")  # a notebook shows it as it is, without a tight box around it
    return figure


def _show_figures() -> None:
    """Let a notebook show figures that are the value of a cell, as pyplot does."""
    if "IPython" not in sys.modules:
        return
    from IPython import get_ipython
    from IPython.core.pylabtools import select_figure_formats

    if (shell := get_ipython()) is not None:
        select_figure_formats(shell, {"png"})

"""Tables for a paper in plain LaTeX with booktabs. Every name is escaped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vtcav_ray.pages.wording import percent, probability, share, signed
from vtcav_ray.report.score_cells import GROUP_WORDS, ScoreCells

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def escape(text: str) -> str:
    """Escape text for LaTeX."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def number(text: str) -> str:
    """Convert a formatted figure to LaTeX's minus, less-than sign and dash."""
    return text.replace("−", "$-$").replace("<", "$<$").replace("–", "--")


def significant_cells(cells: ScoreCells) -> str:
    """Write every significant cell, by class: effect, share of the margin, interval, q, TCAV score and its null."""
    rows = np.flatnonzero(cells.significant_N)
    order = rows[np.lexsort((-np.abs(cells.numbers["effect"][rows]), cells.class_N[rows]))]
    body = []
    for i in order:
        column, figure = cells.columns[cells.column_N[i]], cells.numbers
        names = (cells.classes[cells.class_N[i]], column.concept, column.against, cells.layers[cells.layer_N[i]])
        numbers = (
            signed(figure["effect"][i]),
            percent(figure["share_of_margin"][i]).replace("\u00a0%", r"\,\%"),
            f"[{signed(figure['ci_low'][i])}, {signed(figure['ci_high'][i])}]",
            probability(figure["q"][i]),
            share(figure["tcav_score"][i]),
            f"{share(figure['tcav_null_mean'][i])} ± {share(figure['tcav_null_sd'][i])}",
        )
        body.append([*(escape(name) for name in names), *(number(n).replace("±", r"$\pm$") for n in numbers)])
    figures = ("effect", "of margin", r"95\,\% interval", "$q$", "TCAV", "its null")
    heads = ("class", "concept", "against", "layer", *figures)
    return _tabular("llllrrrrrr", heads, body)


def summary(cells: ScoreCells) -> str:
    """Write a table of the counts of significant and of all cells against random clips, by concept group and layer."""
    body = []
    for group, word in GROUP_WORDS.items():
        of_group = cells.group(group) & cells.contrast("random")
        if of_group.any():
            counts = [
                f"{int((of_group & cells.significant_N & (cells.layer_N == la)).sum())} of "
                f"{int((of_group & (cells.layer_N == la)).sum())}"
                for la in range(len(cells.layers))
            ]
            body.append([word, *counts])
    return _tabular("l" + "r" * len(cells.layers), ["concepts that are", *map(escape, cells.layers)], body)


def _tabular(columns: str, heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [r"% needs \usepackage{booktabs}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [" & ".join(heads) + r" \\", r"\midrule"]
    lines += [" & ".join(row) + r" \\" for row in body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])

"""A folder for a paper: figures as PNG, SVG and PDF, the scores as Parquet, CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from vtcav_ray.errors import ConfigError
from vtcav_ray.exports import figures, latex
from vtcav_ray.report.data import ReportData
from vtcav_ray.report.score_cells import ScoreCells, read_cells
from vtcav_ray.report.verdicts import verdict_table
from vtcav_ray.runs.run import Run
from vtcav_ray.text.csv_text import without_formulas
from vtcav_ray.text.file_names import distinct_names

FIGURE_FORMATS = ("png", "svg", "pdf")


def export(
    run: Run, folder: str, *, formats: Sequence[str] = FIGURE_FORMATS, classes: Sequence[str] = ()
) -> list[Path]:
    """Write figures and tables of a run.

    Args:
        run: with scores.
        folder: a local folder, created if it is missing. Existing files of the same names are replaced.
        formats: file formats of the figures.
        classes: the classes that get a figure each; empty: all.

    Returns:
        The written files: `effects-<class>.<format>` (concept effects by layer, with intervals over the null's band),
        `matrix-<layer>.<format>` and, for motion controls, `matrix-<layer>-<control>.<format>`,
        `verdicts.txt` (one line per class), `scores.parquet`, `scores.csv`, `scores.tex` (significant cells) and
        `summary.tex`.

    Raises:
        ConfigError: an unknown format or class, or the run has no scores.
    """
    if unknown := sorted(set(formats) - set(FIGURE_FORMATS)):
        raise ConfigError(f"No figure format {', '.join(unknown)}: choose from {', '.join(FIGURE_FORMATS)}.")
    scores = run.table("scores")
    if not scores.num_rows:
        raise ConfigError(f"{run.url} has no scores to export. See `vtcav table {run.url} failures` for why.")
    data = ReportData(title=run.config.name, scores=scores, config=run.record["config"])
    cells = read_cells(scores, data.layers)
    if unknown := [name for name in classes if name not in cells.classes]:
        raise ConfigError(f"No class {', '.join(unknown)} in {run.url}. There are: {', '.join(cells.classes)}.")
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    written = [
        *_tables(verdict_table(cells, data.movements), scores, cells, place),
        *_figures(cells, place, formats, classes or cells.classes),
    ]
    return sorted(written)


def _tables(verdicts: pa.Table, scores: pa.Table, cells: ScoreCells, place: Path) -> list[Path]:
    pq.write_table(scores, place / "scores.parquet")
    pyarrow.csv.write_csv(without_formulas(scores), place / "scores.csv")
    (place / "scores.tex").write_text(latex.significant_cells(cells), encoding="utf-8")
    (place / "summary.tex").write_text(latex.summary(cells), encoding="utf-8")
    lines = [f"{row['class']}: {row['verdict']}\n" for row in verdicts.to_pylist()]
    (place / "verdicts.txt").write_text("".join(lines), encoding="utf-8")
    return [place / name for name in ("verdicts.txt", "scores.parquet", "scores.csv", "scores.tex", "summary.tex")]


def _figures(cells: ScoreCells, place: Path, formats: Sequence[str], classes: Sequence[str]) -> list[Path]:
    written = []
    with figures.style():
        # Name files over all classes, so a class's file name does not depend on which classes are drawn.
        class_files, layer_files = distinct_names(cells.classes), distinct_names(cells.layers)
        drawn = [(f"effects-{class_files[name]}", figures.effects(cells, name)) for name in classes]
        drawn += [(f"matrix-{layer_files[layer]}", figures.matrix(cells, layer)) for layer in cells.layers]
        twins = [(layer, control) for layer in cells.layers for control in figures.controls(cells)]
        drawn += [(f"matrix-{layer_files[layer]}-{c}", figures.matrix(cells, layer, c)) for layer, c in twins]
        for name, figure in drawn:
            if figure is None:
                continue
            for form in formats:
                path = place / f"{name}.{form}"
                figures.save(figure, path)
                written.append(path)
    return written

"""The result of `vtcav_ray.explain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from vtcav_ray.notebook.shown import answer_html, answer_text, figure_of
from vtcav_ray.report.score_cells import ScoreCells, read_cells
from vtcav_ray.report.verdicts import verdict_table
from vtcav_ray.rows import Failure
from vtcav_ray.stages import ANSWER

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Explanation:
    """Which concepts a recogniser uses for each class, at each layer.

    Attributes:
        scores: rows of the table `scores` (docs/tables.md), an Arrow table.
        nulls: rows of the table `nulls`: the distributions of effects and scores without the concept.
        layers: in the order of the call.
        movements: names of the concepts that are movements.
        warnings: sentences about the clips and the statistics.
        failures: clips that could not be used.
    """

    scores: pa.Table
    nulls: pa.Table
    layers: tuple[str, ...]
    movements: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()

    @cached_property
    def table(self) -> pd.DataFrame:
        """The cells as a DataFrame, with the columns of the table `scores`."""
        return self.scores.to_pandas()

    @property
    def verdicts(self) -> pd.DataFrame:
        """One row per class: the verdict in words, and the clearest comparison that raises the class's logit."""
        return verdict_table(self._cells, self.movements).to_pandas()

    def summary(self) -> str:
        """Return the verdicts in sentences, one line per class."""
        return answer_text(verdict_table(self._cells, self.movements))

    def plot(self, class_name: str | None = None) -> Figure:
        """Draw the concept effects of a class: one panel per layer, each effect with its interval over the null's band.

        Args:
            class_name: None: the class with the clearest finding.

        Raises:
            ValueError: there is no such class.
        """
        return figure_of(self._cells, class_name, self.movements)

    @cached_property
    def _cells(self) -> ScoreCells:
        return read_cells(self.scores, self._layers_of_cells)

    @property
    def _layers_of_cells(self) -> Sequence[str]:
        return (*self.layers, ANSWER)

    def __repr__(self) -> str:
        found = int(sum(bool(value) for value in self.scores["significant"].to_pylist()))
        return f"<Explanation: {self.scores.num_rows} cells, {found} significant>\n{self.summary()}"

    def _repr_html_(self) -> str:
        return answer_html(self._cells, self.movements, notes=self.warnings)

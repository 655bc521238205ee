"""`vtcav_ray.run` and `vtcav_ray.Run`: a run that shows itself in a notebook."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from vtcav_ray.config import Config
from vtcav_ray.config.loading import load_config, parse_config
from vtcav_ray.engine.completing import Progress
from vtcav_ray.errors import ConfigError
from vtcav_ray.pipeline import run as run_pipeline
from vtcav_ray.report.data import ReportData
from vtcav_ray.report.score_cells import ScoreCells, read_cells
from vtcav_ray.runs.run import Run as StoredRun

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Options(TypedDict, total=False):
    """Options of `vtcav_ray.pipeline.run`, which explains them."""

    base: StoredRun | None
    until: str | None
    fresh: bool
    retry_failed: bool
    verify: bool
    take_over: bool


class Run(StoredRun):
    """A run folder, opened for reading: its verdicts, scores, figures, tables and report.

    Args:
        url: of the run folder, on any file system.
        storage_options: for fsspec.
        verify: check tables against the commit records when they are read.

    Raises:
        ConfigError: there is no run at this URL.
        BrokenFile: its run.json is damaged.

    Example:
        >>> run = vtcav_ray.Run("runs/quickstart")
        >>> print(run.summary())
        >>> run.scores.query("significant and layer == 'late'")
        >>> run.plot("lift")
    """

    @property
    def scores(self) -> pd.DataFrame:
        """The table `scores` as a DataFrame.

        Raises:
            ConfigError: the run has not reached its scores, or an older version made them.
        """
        return self.table("scores").to_pandas()

    @property
    def verdicts(self) -> pd.DataFrame:
        """The table `verdicts` as a DataFrame: one row per class. Raises what `scores` raises."""
        return self.table("verdicts").to_pandas()

    @property
    def report(self) -> str:
        """URL of the report's page.

        Raises:
            ConfigError: there is none yet.
        """
        if "report" not in self.keys:
            raise ConfigError(f"The run at {self.url} has no report yet. Run it again: it resumes.")
        return self.report_url

    def plot(self, class_name: str | None = None) -> Figure:
        """Draw the concept effects of a class: one panel per layer, each effect with its interval over the null's band.

        Args:
            class_name: None: the class with the clearest finding.

        Raises:
            ValueError: there is no such class.
            ConfigError: the run has not reached its scores.
        """
        from vtcav_ray.notebook.shown import figure_of

        data = self._data()
        return figure_of(_cells(data), class_name, data.movements)

    def _data(self) -> ReportData:
        return ReportData(title="", scores=self.table("scores"), config=self.record["config"])

    def __repr__(self) -> str:
        status = self.record.get("status", "unknown")
        words = f"<Run {self.url}: {status}>"
        return f"{words}\n{self.summary()}" if "report" in self.keys else words

    def _repr_html_(self) -> str:
        from html import escape

        from vtcav_ray.notebook.shown import answer_html

        head = f"<p><code>{escape(self.url)}</code>: {escape(str(self.record.get('status', 'unknown')))}</p>"
        if "report" not in self.keys:
            return head
        data = self._data()
        link = (self.report_url, "The report") if "://" not in self.url or self.url.startswith("http") else None
        return head + answer_html(_cells(data), data.movements, notes=self.record.get("warnings", ()), link=link)


def _cells(data: ReportData) -> ScoreCells:
    return read_cells(data.scores, data.layers)


def run(
    config: Config | str | os.PathLike[str] | Mapping[str, Any],
    progress: Progress | None = None,
    *,
    overrides: Sequence[str] = (),
    out: str | None = None,
    **options: Unpack[Options],
) -> Run:
    """Run every stage that is not complete yet, and open the result.

    Args:
        config: a config; or the path, URL or packaged name (`asset:quickstart.yaml`) of its YAML; or its content as a
            mapping.
        progress: receives every stage and shard event; None: only the log.
        overrides: `key=value` settings over the YAML, as of `vtcav run --set`.
        out: the run folder, instead of the config's.
        **options: `base`, `until`, `fresh`, `retry_failed`, `verify` and `take_over` of `vtcav_ray.pipeline.run`.

    Returns:
        The run. In a notebook it shows its verdicts.

    Raises:
        ConfigError: the config has a mistake, or names something that does not exist.
        StageError: a stage could not be completed; run again to resume.

    Example:
        >>> run = vtcav_ray.run("asset:quickstart.yaml", out="runs/quickstart")
        >>> run.scores
    """
    loaded = _loaded(config, overrides, out)
    found = run_pipeline(loaded, progress, **options)
    return Run(found.url, found.folder.storage_options, verify=found.folder.verify)


def _loaded(
    config: Config | str | os.PathLike[str] | Mapping[str, Any], overrides: Sequence[str], out: str | None
) -> Config:
    if isinstance(config, str | os.PathLike):
        return load_config(os.fspath(config), overrides, out=out)
    if overrides:
        raise TypeError("overrides: they change a YAML. Change the given config itself.")
    parsed = config if isinstance(config, Config) else parse_config(dict(config))
    return parsed if out is None else parsed.model_copy(update={"out": out})

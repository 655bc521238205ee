"""Stage `report`: writes the HTML report. It runs in the driver.

RUN/report/<key>/report.html                  report of a run without Grad-CAM
RUN/report/<key>/report-<gradcam key>.html    report of the same run once it links to a Grad-CAM page
                                              (the same with the patch effects' key once it shows them)
RUN/report.html                               copy of the report of the folder's newest run
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from vtcav_ray import stages
from vtcav_ray.report.companions import companions
from vtcav_ray.runs.run import REPORT_PAGE, Run
from vtcav_ray.runs.stage import Context, Shard, Stage, Work
from vtcav_ray.stages import FAITHFUL, PATCH
from vtcav_ray.store.commits import ShardOutput
from vtcav_ray.store.folder import Folder

if TYPE_CHECKING:
    from vtcav_ray.report.data import ReportData


def _prepare(context: Context) -> Work:
    return Work(
        shards=[Shard("report", pa.table({"shard": ["report"]}))],
        make_worker=functools.partial(_Writer, context.run),
    )


class _Writer:
    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def __call__(self, rows: pa.Table) -> ShardOutput:
        from vtcav_ray.report import ReportData
        from vtcav_ray.report.score_cells import read_cells
        from vtcav_ray.report.verdicts import verdict_table

        run = Run(self.folder.url, self.folder.storage_options)
        data = ReportData.from_run(run)
        found = {"verdicts": verdict_table(read_cells(data.scores, data.layers), data.movements)}
        if data.mistakes is not None:
            found["mistakes"] = data.mistakes
        return ShardOutput(found, metrics={"html_bytes": len(_write(run, data))})


def publish_report(run: Run) -> None:
    """Copy the newest run's page to `RUN/report.html`, even if that run's report was already complete.

    Other configs may have used the folder in between, so the page there may belong to another run. If the page changes,
    rewrite its companions (`vtcav_ray.report.companions`), which show the same scores.

    Raises:
        ConfigError: the newest run has not reached its report.
    """
    kept = run.stage("report").folder
    page = kept.read_bytes(_name(run)) if kept.exists(_name(run)) else _write(run)
    if run.folder.exists(REPORT_PAGE) and run.folder.read_bytes(REPORT_PAGE) == page:
        return
    run.folder.write_bytes(REPORT_PAGE, page)
    for stage, companion in companions(run):
        if run.stage(stage).complete:
            companion.rewrite(run)


def _write(run: Run, data: ReportData | None = None) -> bytes:
    from vtcav_ray.report import ReportData, build_report

    page = build_report(data or ReportData.from_run(run)).encode()
    run.stage("report").folder.write_bytes(_name(run), page)
    return page


def _name(run: Run) -> str:
    """Return the page's file name in the stage's folder.

    It names what the page shows and the stage's key does not: linked companions, patch effects and checks.
    """
    keys = [run.keys[stage] for stage, _ in companions(run)]
    shown = (stage.name for stage in (PATCH, FAITHFUL))
    keys += [run.keys[name] for name in shown if name in run.keys and run.stage(name).complete]
    return f"report-{'-'.join(keys)}.html" if keys else REPORT_PAGE


def _ingredients(context: Context) -> dict[str, Any]:
    return {"name": context.config.name, "rates": context.config.resources.rates.model_dump(mode="json")}


STAGE = Stage(
    stages.REPORT,
    version=10,
    ingredients=_ingredients,
    prepare=_prepare,
)

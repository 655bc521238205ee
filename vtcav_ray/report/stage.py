"""Stage `report`: the page that a person reads. Done in the driver."""

from __future__ import annotations

import functools
from typing import Any

import pyarrow as pa

from vtcav_ray.gradcam.page import write_page as write_gradcam_page
from vtcav_ray.report import ReportData, build_report
from vtcav_ray.results import Run
from vtcav_ray.stage import Context, Shard, Stage, Work
from vtcav_ray.storage import Folder, ShardOutput


def _prepare(context: Context) -> Work:
    return Work(
        shards=[Shard("report", pa.table({"shard": ["report"]}))],
        make_worker=functools.partial(_Writer, context.run),
    )


class _Writer:
    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def __call__(self, rows: pa.Table) -> ShardOutput:
        run = Run(self.folder.url, self.folder.storage_options)
        if "gradcam" in run.keys and run.stage("gradcam").complete:
            write_gradcam_page(run)  # it shows the scores beside the maps, and these are new
        return ShardOutput({}, metrics={"html_bytes": write_report(run)})


def write_report(run: Run) -> int:
    """Write `report.html` into the run folder; returns its bytes."""
    page = build_report(ReportData.from_run(run)).encode()
    run.folder.write_bytes("report.html", page)
    return len(page)


def _ingredients(context: Context) -> dict[str, Any]:
    return {"name": context.config.name, "rates": context.config.resources.rates.model_dump(mode="json")}


STAGE = Stage(
    "report",
    inputs=("videos", "tracks", "clips", "activations", "cavs", "scores"),
    version=2,
    ingredients=_ingredients,
    prepare=_prepare,
)

"""Stage `report`: the page that a person reads. Done in the driver."""

from __future__ import annotations

import functools
from typing import Any

import pyarrow as pa

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
        page = build_report(ReportData.from_run(run)).encode()
        self.folder.write_bytes("report.html", page)
        return ShardOutput({}, metrics={"html_bytes": len(page)})


def _ingredients(context: Context) -> dict[str, Any]:
    return {"name": context.config.name, "rates": context.config.resources.rates.model_dump(mode="json")}


STAGE = Stage(
    "report",
    inputs=("videos", "tracks", "clips", "activations", "cavs", "scores"),
    version=2,
    ingredients=_ingredients,
    prepare=_prepare,
)

"""Shared parts of the tests of what commands do with a finished run."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc
from typer.testing import CliRunner

from tests.helpers.small_runs import without_ray
from vtcav_ray import cli
from vtcav_ray.runs.run import Run


def vtcav(*words: str) -> str:
    with without_ray():
        result = CliRunner().invoke(cli.application.app, list(words), env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def cell(run: Run, **wanted: str) -> dict[str, Any]:
    table = run.table("scores")
    for column, value in wanted.items():
        table = table.filter(pc.equal(table[column], value))
    (row,) = table.to_pylist()
    return dict(row)

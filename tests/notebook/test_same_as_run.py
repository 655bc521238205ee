"""`vtcav_ray.explain` on a run's stored clips gives the run's cells."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import vtcav_ray
from tests.helpers.clips_of_run import explain_arguments
from tests.helpers.planted_run import PlantedRun
from vtcav_ray.models import load_recogniser
from vtcav_ray.notebook import Explanation

pytestmark = pytest.mark.slow
KEY = ("class", "layer", "concept", "against")


@pytest.fixture(scope="module")
def explained(planted: PlantedRun) -> Explanation:
    config = planted.run.config
    model = load_recogniser(config.model, "cpu", seed=config.seed)
    names = {name.rpartition("/")[0] for name in ("moving up/context",)}
    return vtcav_ray.explain(model, movements=names, **explain_arguments(planted.run))


def by_cell(table: pa.Table) -> dict[tuple[str, ...], dict]:
    return {tuple(row[name] for name in KEY): row for row in table.to_pylist()}


@pytest.mark.full
def test_the_cells_are_those_of_the_run(planted: PlantedRun, explained: Explanation) -> None:
    expected, found = by_cell(planted.run.table("scores")), by_cell(explained.scores)
    assert found.keys() == expected.keys()
    assert len(expected) > 100
    assert explained.table.columns.tolist() == planted.run.table("scores").column_names
    for column in planted.run.table("scores").schema:
        one = [expected[key][column.name] for key in expected]
        other = [found[key][column.name] for key in expected]
        if pa.types.is_floating(column.type):
            numbers = [np.array([np.nan if v is None else v for v in values]) for values in (one, other)]
            np.testing.assert_allclose(*reversed(numbers), rtol=1e-6, atol=1e-6, err_msg=column.name)
        else:
            assert other == one, column.name


def test_the_nulls_are_those_of_the_run(planted: PlantedRun, explained: Explanation) -> None:
    expected, found = by_cell(planted.run.table("nulls")), by_cell(explained.nulls)
    assert found.keys() == expected.keys()
    assert all(found[key]["effect_counts"] == row["effect_counts"] for key, row in expected.items())


def test_the_verdicts_are_those_of_the_run(planted: PlantedRun, explained: Explanation) -> None:
    assert explained.summary() == planted.run.summary()
    assert "lift" in explained.summary()


def test_warnings_name_the_same_random_sets(planted: PlantedRun, explained: Explanation) -> None:
    of_run = [*planted.run.manifest("cavs")["warnings"], *planted.run.manifest("scores")["warnings"]]
    assert list(explained.warnings) == of_run

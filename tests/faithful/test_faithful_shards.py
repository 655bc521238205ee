"""The stage of the checks of an explanation, from its shards to its last table, on clips of one colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.colour_squares import WEIGHT
from tests.helpers.one_colour_clips import BROWN, REFERENCE, activations_of, config, pool, written_clips
from vtcav_ray import tables
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.faithful.plan import Chosen, choose_sets
from vtcav_ray.faithful.stage import check_projections, faithful_stage
from vtcav_ray.runs.stage import Context
from vtcav_ray.scores.choose import CellKey
from vtcav_ray.store.commits import ShardOutput, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.vectors import vector_array

WARMTH = "warm/spatial"
CELLS = [CellKey(name, "early", WARMTH, "random") for name in ("blue", "red")]
GRADIENTS = {"blue": [0.0, 0.0, WEIGHT], "red": [WEIGHT, 0.0, 0.0]}


def chosen(*classes: str, clips: int = 2) -> Chosen:
    cells = [cell for cell in CELLS if cell.class_ in classes]
    return choose_sets(cells, dict.fromkeys(cells, 1.0), clips=clips, random_sets=2, in_curves=3)


def context(path: Path) -> Context:
    folder = Folder(str(path))
    inputs = {"clips": written_clips(folder), "activations": activations_of(folder, GRADIENTS)}
    cav = np.array([[3.0, 0, 0], [5.0, 0, 0], [np.nan] * 3, [0, 9.0, 0]], np.float32)
    against = ["random", "random", "random", "cold/spatial"]
    cavs = {"concept": [WARMTH] * 4, "against": against, "vector": vector_array(cav)}
    rows = [{**dict(zip(tables.CELL_KEY, cell, strict=True)), "z": 1.0, "effect": 1.0} for cell in CELLS]
    parts = {
        "cavs": {"cavs/layer=early": pa.table(cavs)},
        "scores": {"scores": pa.Table.from_pylist(rows, schema=tables.EMPTY_SCHEMAS["scores"])},
    }
    for stage, found in parts.items():
        inputs[stage] = stage_folder(folder, stage, "k")
        inputs[stage].commit("0", ShardOutput(found))
        inputs[stage].finish({}, {"notes": {}, "warnings": []})
    return Context(config(scores={"permutations": 200, "bootstrap": 100}), folder, inputs)


def test_the_largest_effects_are_in_the_curves() -> None:
    cells = [CellKey("red", "early", f"c{i}/spatial", "random") for i in range(4)]
    effects = dict(zip(cells, (0.1, -3.0, float("nan"), 2.0), strict=True))
    found = choose_sets(cells, effects, clips=1, random_sets=2, in_curves=2)
    assert found.orders == {("red", "early"): ("c1/spatial", "c3/spatial")}
    assert found.concepts == tuple(f"c{i}/spatial" for i in range(4))


def test_shards_are_clips_to_erase_levels_to_shuffle_and_halves(tmp_path: Path) -> None:
    shards = faithful_stage(chosen("blue", "red", clips=1)).prepare(context(tmp_path)).shards
    erased, after, whole, halves = (shard.rows.to_pylist() for shard in shards)
    assert [row["class"] for row in erased] == ["blue", "red"]  # one clip of each
    assert {row["clip_id"] for row in erased} < set(REFERENCE)
    assert (after[0]["layer"], after[0]["clip_id"]) == ("after early", [])
    assert whole[0]["layer"] == "whole"
    assert sorted(whole[0]["clip_id"]) == sorted(pool())
    assert after[0]["reference"] == whole[0]["reference"] == [row["clip_id"] for row in erased]
    assert halves == [{"check": "halves"}]


def test_directions_are_those_of_the_pool_and_of_the_cavs(tmp_path: Path) -> None:
    worker = faithful_stage(chosen("red")).prepare(context(tmp_path)).make_worker()
    found = worker.found["early"]  # type: ignore[attr-defined]
    own, other = (np.mean([c for n, c in pool().items() if n.startswith(s)], axis=0) for s in ("warm", "random"))
    np.testing.assert_allclose(found.shift[WARMTH], (own - other) / 255, atol=1e-6)
    np.testing.assert_allclose(found.pattern[WARMTH], (own - other) / np.linalg.norm(own - other), atol=1e-5)
    np.testing.assert_allclose(found.filters[WARMTH], [1, 0, 0], atol=1e-6)  # without the one that is NaN
    assert found.random["spatial"].shape == (2, 3)


def test_the_last_table_has_a_row_of_every_check(tmp_path: Path) -> None:
    given = context(tmp_path)
    work = faithful_stage(chosen("blue", "red")).prepare(given)
    worker, output = work.make_worker(), stage_folder(given.run, "faithful", "k")
    for shard in work.shards:
        output.commit(shard.name, worker(shard.rows))
    assert work.finish is not None
    table = work.finish(output).tables["faithfulness"]
    assert table.schema == tables.FAITHFULNESS
    value = {(row["measure"], row["class"]): row["value"] for row in table.to_pylist()}
    own, other = (np.mean([c for n, c in pool().items() if n.startswith(s)], axis=0) / 255 for s in ("warm", "random"))
    for name, axis in (("red", 0), ("blue", 2)):  # the network is linear
        change = pytest.approx(WEIGHT * (own - other)[axis], rel=1e-4)
        assert value["first-order change", name] == change
        assert value["real change", name] == change
    lost = WEIGHT * (np.array(BROWN) / 255 - other)[0]  # along the CAV, which is red
    assert value["change along the CAV", "red"] == pytest.approx(-lost, rel=1e-4)
    assert value["change along the CAV", "blue"] == pytest.approx(0, abs=1e-6)
    assert {row["check"] for row in table.to_pylist()} == {"necessity", "first order", "stability"}


def test_a_class_without_examples_or_a_projection_of_places_is_refused(tmp_path: Path) -> None:
    cells = [CELLS[0]._replace(class_="fades")]
    nothing = choose_sets(cells, {}, clips=1, random_sets=2, in_curves=3)
    with pytest.raises(StageError, match="No class example of the chosen classes"):
        faithful_stage(nothing).prepare(context(tmp_path))
    with pytest.raises(ConfigError, match="early@mean"):
        check_projections(["early", "early@space"], config())

"""The table `patch_effects` from responses that are written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vtcav_ray import tables
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import StageError
from vtcav_ray.patch.plan import Chosen, cell_rows, pool_clips
from vtcav_ray.patch.run import Cost
from vtcav_ray.patch.stage import finished
from vtcav_ray.scores.choose import CellKey
from vtcav_ray.scores.sides import Comparison, Side
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.store.folder import Folder

UP = "up/spatiotemporal"
LIFT, DROP = (CellKey(name, "late", UP, "random") for name in ("lift", "drop"))
CONFIG = parse_config({"videos": {"uri": "unused"}, "scores": {"permutations": 500}})


def side(name: str, count: int) -> Side:
    return Side(tuple(f"{name}{i}" for i in range(count)), tuple(f"v-{name}{i}" for i in range(count)))


def comparison(paired: bool = False) -> Comparison:
    return Comparison(side("c", 8), side("t" if paired else "r", 8 if paired else 20), paired)


def written(folder: Path, one: Comparison, *, without: str = "") -> StageFolder:
    """Write responses: 2 to `lift` and -1 to `drop` for the concept's clips, 0 for the others, with a small spread."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for clip in (*one.concept.clips, *one.other.clips):
        if clip == without:
            continue
        for name, size in (("lift", 2.0), ("drop", -1.0)):
            own = size * (clip in one.concept.clips)
            rows.append({"clip_id": clip, "class": name, "response": own + 0.1 * rng.normal(), "first_order": own})
    stated = {"layer": "late", "references": 5, "model": "m@1"}
    table = pa.Table.from_pylist([{**stated, **row} for row in rows], schema=tables.PATCHED)
    output = StageFolder("patch", "k", Folder(str(folder)).below("patch", "k"))
    output.commit("0", ShardOutput({"patched/layer=late": table}))
    return output


def rows_of(folder: Path, one: Comparison, effects: tuple[float, float], **options: Any) -> dict[str, dict[str, Any]]:
    chosen = Chosen((LIFT, DROP), significant=False)
    scores = {cell: {"effect": effect} for cell, effect in zip((LIFT, DROP), effects, strict=True)}
    output = finished(chosen, {"late": {(UP, "random"): one}}, scores, CONFIG, written(folder, one, **options))
    return {row["class"]: row for row in output.tables["patch_effects"].to_pylist()}


def test_the_effect_is_the_difference_of_the_sides_beside_the_concept_effect(tmp_path: Path) -> None:
    found = rows_of(tmp_path, comparison(), (1.5, 0.2))
    lift, drop = found["lift"], found["drop"]
    assert lift["effect_patch"] == pytest.approx(2.0, abs=0.2)
    assert lift["effect_first_order"] == pytest.approx(2.0)
    assert drop["effect_first_order"] == pytest.approx(-1.0)
    assert (lift["effect"], lift["same_sign"], drop["same_sign"]) == (1.5, True, False)
    assert (lift["n_concept"], lift["n_random"], lift["references"], lift["model"]) == (8, 20, 5, "m@1")
    assert lift["p"] <= lift["q"] < 0.05
    assert lift["z"] == pytest.approx(lift["effect_patch"] / lift["null_sd"])


def test_an_effect_of_zero_has_no_sign_to_compare(tmp_path: Path) -> None:
    found = rows_of(tmp_path, comparison(), (0.0, float("nan")))
    assert (found["lift"]["same_sign"], found["drop"]["same_sign"]) == (None, None)


def test_a_clip_without_a_response_is_left_out_and_so_is_its_twin(tmp_path: Path) -> None:
    alone = rows_of(tmp_path / "alone", comparison(), (1.0, 1.0), without="c3")["lift"]
    assert (alone["n_concept"], alone["n_random"]) == (7, 20)
    pairs = rows_of(tmp_path / "pairs", comparison(paired=True), (1.0, 1.0), without="t3")["lift"]
    assert (pairs["n_concept"], pairs["n_random"]) == (7, 7)
    assert pairs["effect_first_order"] == pytest.approx(2.0)
    assert np.isnan(pairs["spread_ratio"])


def test_a_stage_without_any_response_says_where_the_failures_are(tmp_path: Path) -> None:
    output = StageFolder("patch", "k", Folder(str(tmp_path)).below("patch", "k"))
    with pytest.raises(StageError, match=r"No pool clip has a response.*vtcav table RUN failures"):
        finished(Chosen((LIFT,), significant=True), {}, {}, CONFIG, output)


def test_the_pool_of_a_layer_has_both_sides_of_its_cells_alone() -> None:
    early = CellKey("lift", "early", "cup/spatial", "random")
    chosen = Chosen((LIFT, early, DROP), significant=True)
    assert (chosen.layers, chosen.classes) == (("late", "early"), ("drop", "lift"))
    sides = {(UP, "random"): Comparison(side("b", 2), side("a", 1), paired=False)}
    assert pool_clips(chosen, "late", sides) == {"a0": "v-a0", "b0": "v-b0", "b1": "v-b1"}


def test_the_rows_of_the_scores_are_found_by_their_cell() -> None:
    row = {"class": "lift", "layer": "late", "concept": UP, "against": "random", "effect": 1.0}
    found = cell_rows(pa.Table.from_pylist([row]))
    assert found[LIFT]["effect"] == 1.0


def test_the_cost_is_a_pass_per_pool_clip_and_reference_clip() -> None:
    cost = Cost(2, {"early": 10, "late": 4}, {"early": 3, "late": 5}, 0.5)
    assert cost.passes == {"early": 30, "late": 20}
    assert cost.most_seconds == 25.0
    assert Cost(2, {}, {}, None).most_seconds is None

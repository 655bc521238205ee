"""The finite change of patched cells stands beside their effect in the report's scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.run_factory import make_run
from vtcav_ray import tables
from vtcav_ray.report.data import _with_patch_effects
from vtcav_ray.report.phrases import plain
from vtcav_ray.report.score_cells import read_cells
from vtcav_ray.report.sentences import findings
from vtcav_ray.rows import PatchEffectRow, table_of
from vtcav_ray.runs.run import Run
from vtcav_ray.store.commits import ShardOutput, stage_folder


def patched(cell: dict[str, Any]) -> PatchEffectRow:
    key: dict[str, Any] = {"class_" if name == "class" else name: cell[name] for name in tables.CELL_KEY}
    figures: dict[str, Any] = {
        "null_sd": 0.1,
        "z": 9.0,
        "p": 0.001,
        "p_symmetric": 0.001,
        "q": 0.004,
        "spread_ratio": 1.0,
    }
    about: dict[str, Any] = {"n_concept": 20, "n_random": 150, "references": 10, "model": "m@1", "note": ""}
    return PatchEffectRow(
        **key, effect_patch=0.875, effect_first_order=1.0, effect=cell["effect"], same_sign=True, **figures, **about
    )


@pytest.mark.slow
def test_only_patched_cells_have_a_finite_change(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", weight=1.0)
    assert "effect_patch" not in _with_patch_effects(run).column_names
    (lift,) = [
        row
        for row in run.table("scores").to_pylist()
        if (row["class"], row["concept"], row["against"]) == ("lift", "cup/spatial", "random")
    ]
    stage = stage_folder(run.folder, "patch", "p")
    stage.commit("final", ShardOutput({"patch_effects": table_of([patched(lift)], PatchEffectRow)}))
    run.folder.write_json("patch.json", {"key": "p", "inputs": {"scores": "k"}})
    assert "effect_patch" not in _with_patch_effects(Run(run.url)).column_names  # it is not complete
    stage.finish({}, {"notes": {}, "warnings": [], "seconds": 1.0})
    scores = _with_patch_effects(Run(run.url))
    assert scores.num_rows == run.table("scores").num_rows
    for row in scores.to_pylist():
        there = all(row[name] == lift[name] for name in tables.CELL_KEY)
        assert (row["effect_patch"], row["q_patch"]) == ((0.875, 0.004) if there else (None, None))
    cells = read_cells(scores, ["late"])
    told = [plain(s) for one in findings(cells, cells.classes) for s in one.sentences]
    assert sum("Putting the concept's activations in place changes it by +0.88" in text for text in told) == 1

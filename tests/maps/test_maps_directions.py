"""The stage of concept maps on clips of one colour: its directions, its shards, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.one_colour_clips import REFERENCE, activations_of, config, pool, written_clips
from vtcav_ray.clips.usable import AcceptedRows
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.maps.stage import RANDOM_DIRECTIONS, Chosen, check_projections, directions_of, maps_stage
from vtcav_ray.runs.stage import Context, Work
from vtcav_ray.scores.choose import CellKey
from vtcav_ray.store.commits import stage_folder
from vtcav_ray.store.folder import Folder

RED = CellKey("red", "early", "warm/spatial", "random")


def prepared(path: Path, *cells: CellKey, clips: int = 4) -> Work:
    folder = Folder(str(path))
    inputs = {"clips": written_clips(folder), "activations": activations_of(folder)}
    for stage in ("cavs", "scores"):
        inputs[stage] = stage_folder(folder, stage, "k")
        inputs[stage].finish({}, {"notes": {}, "warnings": []})
    return maps_stage(Chosen(cells, clips)).prepare(Context(config(), folder, inputs))


def test_a_direction_is_the_difference_of_the_means(tmp_path: Path) -> None:
    activations = AcceptedRows.of(activations_of(Folder(str(tmp_path))), ["warm/0"])
    found, warnings = directions_of((RED, RED._replace(class_="blue")), activations, config())
    assert warnings == []
    assert set(found) == {RED[1:]}
    one = found[RED[1:]]
    colours = {clip: colour / 255 for clip, colour in pool().items() if clip != "warm/0"}
    own, other = (np.mean([c for n, c in colours.items() if n.startswith(s)], axis=0) for s in ("warm", "random"))
    np.testing.assert_allclose(one.concept_d, (own - other) / np.linalg.norm(own - other), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(one.base_d, other, rtol=1e-5)
    assert one.random_Rd.shape == (RANDOM_DIRECTIONS, 3)
    np.testing.assert_allclose(np.linalg.norm(one.random_Rd, axis=1), 1, rtol=1e-5)


def test_its_shards_hold_the_examples_of_the_cells_classes(tmp_path: Path) -> None:
    work = prepared(tmp_path, RED)
    clips = [clip for shard in work.shards for clip in shard.rows["clip_id"].to_pylist()]
    assert clips == [clip for clip in REFERENCE if clip.startswith("red")]
    assert work.warnings == []
    assert work.notes["untrained"] is False
    rows = work.make_worker()(work.shards[0].rows).tables["maps"].to_pylist()
    assert [(row["clip_id"], row["concept"]) for row in rows] == [("red/a", "warm/spatial")]


def test_a_class_without_examples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="No class example of fades is left"):
        prepared(tmp_path, RED._replace(class_="fades"))


@pytest.mark.parametrize("spec", ["space", "flat", "grid:2", "sketch:64"])
def test_a_projection_without_one_direction_for_all_places_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match=r"early@mean"):
        check_projections((RED._replace(layer=f"early@{spec}"),), config())
    check_projections((RED, RED._replace(layer="early@moving")), config())

"""Grad-CAM beside Video-TCAV on a run whose concepts and gradients lie on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.gradcam_figures import rows as map_rows
from tests.helpers.score_world import KIND, World, config
from vtcav_ray import tables
from vtcav_ray.gradcam.compare import compare_methods
from vtcav_ray.runs.run import Run
from vtcav_ray.store.commits import ShardOutput, stage_folder
from vtcav_ray.store.folder import Folder

CLASSES = ("lift", "put_down")
CONCEPTS = (f"up/{KIND}", f"down/{KIND}")
MODEL = {"notes": {"model": "m@1"}, "warnings": []}


def planted() -> World:
    """Six videos of each concept at +3 and -3 on axis 0, and one that shows both; gradients of +1 and -1 on it."""
    world = World()
    world.clips("concept", "up", 6, 3.0)
    world.clips("concept", "down", 6, -3.0)
    for name in ("up", "down"):
        world.rows.append(("concept", name, "both-0", 100 * np.ones(8)))
    for name, sign in zip(CLASSES, (1.0, -1.0), strict=True):
        world.of_class(name, 12, sign)
        world.gain_of |= {f"{name}-{i}": 4.0 for i in range(12)}
    return world


def made(world: World, path: Path, left_out: Sequence[str] = (), stages: Sequence[str] = ("cavs", "scores")) -> Run:
    """Write the run's activations, and those of the other stages that are named."""
    folder = Folder(str(path))
    world.written(folder).finish({}, MODEL)
    cells = [
        {"class": name, "layer": layer, "concept": concept, "against": against, "effect": 1.0, "q": 0.01}
        for name in (*CLASSES, "other")
        for layer in ("late", "answer")
        for concept in (*CONCEPTS, f"cup/{KIND}")
        for against in ("random", "up")
    ]
    schema = tables.EMPTY_SCHEMAS["scores"]
    found = {
        "cavs": {"left_out": pa.table({"clip_id": left_out, "reason": ["rejected"] * len(left_out)}, tables.LEFT_OUT)},
        "scores": {"scores": pa.Table.from_pylist(cells, schema=schema)},
    }
    for stage in stages:
        output = stage_folder(folder, stage, "key")
        output.commit("0", ShardOutput({name: part for name, part in found[stage].items() if part.num_rows}))
        output.finish({}, {"notes": {}, "warnings": []})
    record = {"config": config().model_dump(mode="json"), "keys": dict.fromkeys(("activations", *stages), "key")}
    folder.write_json("run.json", record)
    return Run(str(path))


def maps() -> pa.Table:
    """Return Grad-CAM's rows of six clips of each class, named as the world names them."""
    table = map_rows()
    names, numbers = table["class"].to_pylist(), table["video_id"].to_pylist()
    videos = [f"{name}-{number[1:]}" for name, number in zip(names, numbers, strict=True)]
    clips = [f"class/{video.rpartition('-')[0]}/{video}" for video in videos]
    place = {name: table.schema.get_field_index(name) for name in ("clip_id", "video_id")}
    table = table.set_column(place["clip_id"], "clip_id", pa.array(clips))
    return table.set_column(place["video_id"], "video_id", pa.array(videos))


def mean_of(world: World, name: str) -> np.ndarray:
    return np.mean([z for _, of, video, z in world.rows if of == name and video != "both-0"], axis=0)


def test_the_effect_is_that_of_the_clips_with_maps(tmp_path: Path) -> None:
    world, table = planted(), maps()
    found = compare_methods(made(world, tmp_path), table, CLASSES, CONCEPTS)
    assert found.reason == ""
    assert set(found.maps) == {"middle", "late"}
    assert found.maps["late"].videos == (6, 6)
    assert found.maps["late"].axis == "y"
    assert found.maps["late"].turned == ((6, 6), (6, 6))
    figures = found.tcav["late"]
    shift = mean_of(world, "up") - mean_of(world, "down")
    with_maps = set(table["video_id"].to_pylist())
    for name, effect, p in zip(CLASSES, figures.effect, figures.p, strict=True):
        own = np.mean([g for of, video, g in world.gradients if of == name and video in with_maps], axis=0)
        assert effect.value == pytest.approx(4.0 * own @ shift, rel=1e-4)
        assert effect.low < effect.value < effect.high
        assert p == pytest.approx(2 / 924, abs=1e-6)  # of all ways to divide twelve videos, only two are as extreme
    assert figures.effect[0].low > 0 > figures.effect[1].high
    assert figures.area.value == 1
    cells = {(row["class"], row["concept"], row["layer"], row["against"]) for row in found.scores}
    assert cells == {(name, concept, "late", "random") for name in CLASSES for concept in CONCEPTS}
    assert len(found.scores) == 4


def test_clips_that_are_left_out_count_for_neither_method(tmp_path: Path) -> None:
    world, table = planted(), maps()
    left_out = ["class/lift/lift-1", "concept/up/up-0", "concept/up/both-0", "concept/down/both-0"]
    found = compare_methods(made(world, tmp_path, left_out), table, CLASSES, CONCEPTS)
    assert found.maps["late"].videos == (5, 6)
    up = np.mean([z for _, name, video, z in world.rows if name == "up" and video not in ("up-0", "both-0")], axis=0)
    usable = {v for v in table["video_id"].to_pylist() if v != "lift-1"}
    own = np.mean([g for of, video, g in world.gradients if of == "lift" and video in usable], axis=0)
    assert found.tcav["late"].effect[0].value == pytest.approx(4 * own @ (up - mean_of(world, "down")), rel=1e-4)


@pytest.mark.parametrize(
    ("concepts", "reason"),
    [
        (("up/spatial", "none/spatial"), "fewer than two source videos of the concept none/spatial"),
        (("up/context", "down/spatial"), "fewer than two source videos of the concept up/context"),
    ],
)
def test_a_concept_needs_two_videos(tmp_path: Path, concepts: tuple[str, str], reason: str) -> None:
    found = compare_methods(made(planted(), tmp_path), maps(), CLASSES, concepts)
    assert reason in found.reason
    assert found.tcav == {}
    assert set(found.maps) == {"middle", "late"}


def test_without_gradients_scores_or_the_same_model_the_reason_is_given(tmp_path: Path) -> None:
    world = planted()
    world.gradients = [row for row in world.gradients if row[0] == "lift"]
    lacking = compare_methods(made(world, tmp_path / "lacking"), maps(), CLASSES, CONCEPTS)
    assert lacking.reason == "The run has no gradients of the class put_down for these clips."
    unscored = compare_methods(made(planted(), tmp_path / "unscored", stages=["cavs"]), maps(), CLASSES, CONCEPTS)
    assert "This run has no scores" in unscored.reason
    assert (unscored.tcav, list(unscored.scores), set(unscored.maps)) == ({}, [], {"middle", "late"})
    table = maps()
    place = table.schema.get_field_index("model")
    other = table.set_column(place, "model", pa.array(["m@2"] * table.num_rows))
    found = compare_methods(made(planted(), tmp_path / "other"), other, CLASSES, CONCEPTS)
    assert found.reason == "The run's scores are of another model (m@1) than these maps (m@2)."
    assert found.tcav == {}


def test_a_layer_without_clips_of_both_classes_is_not_compared(tmp_path: Path) -> None:
    table = maps()
    late_lift = pa.compute.and_(pa.compute.equal(table["layer"], "late"), pa.compute.equal(table["class"], "lift"))
    one_sided = table.filter(pa.compute.invert(late_lift))
    assert set(compare_methods(made(planted(), tmp_path), one_sided, CLASSES, CONCEPTS).maps) == {"middle"}

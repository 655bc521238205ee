"""The worker of responses on clips of one red square, with a network that is linear after the layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.colour_squares import SIDE, SQUARE, WEIGHT, clip_row, clips_of, config_of, square_clip
from vtcav_ray import tables
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.responses.reference import clip_shards, read_reference
from vtcav_ray.responses.stage import STAGE
from vtcav_ray.responses.worker import ResponseWorker
from vtcav_ray.runs.stage import Context
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.vectors import vector_array

REFERENCE = {"red/b": 0, "red/a": 20, "blue/c": 30}  # clip -> red that it loses per frame
POOL = {"up": [0.5, 0.1, 0.2], "down": [-1.0, 0.0, 3.0]}  # clip -> its mean colours
BROKEN = b"no clip at all, but long enough"


def video_of(clip: str) -> str:
    return clip.rpartition("/")[2]


def activations_of(folder: Folder, pool: Mapping[str, Sequence[float]] = POOL, *, flag: bool = True) -> StageFolder:
    """Write the pool's activations and the reference clips' gradients of `red` and `blue`.

    Args:
        folder: of the run.
        pool: clip -> its mean colours.
        flag: value of the column `reference`.
    """
    heads = [("concept", clip) for clip in pool] + [("class", clip) for clip in REFERENCE]
    vectors = [pool.get(clip, [0.0, 0.0, 0.0]) for _, clip in heads]
    names = [clip.partition("/")[0] for _, clip in heads]
    number = len(heads)
    activations = {
        "clip_id": [clip for _, clip in heads],
        "set": [set_ for set_, _ in heads],
        "name": names,
        "kind": ["spatial"] * number,
        "video_id": [video_of(clip) for _, clip in heads],
        "layer": ["early"] * number,
        "views": [1] * number,
        "model": ["m@1"] * number,
        "vector": vector_array(np.array(vectors, np.float32)),
    }
    rows = [(clip, name, axis) for clip in REFERENCE for name, axis in (("red", 0), ("blue", 2))]
    gradients: dict[str, Any] = {
        "clip_id": [clip for clip, _, _ in rows],
        "video_id": [video_of(clip) for clip, _, _ in rows],
        "class": [name for _, name, _ in rows],
        "reference": [flag] * len(rows),
        "vector": vector_array(np.array([WEIGHT * np.eye(3)[axis] for _, _, axis in rows], np.float32)),
    }
    output = stage_folder(folder, "activations", "k")
    parts = {
        "activations/layer=early": pa.table(activations, schema=tables.activations(3)),
        "gradients/layer=early": pa.table(gradients),
    }
    output.commit("0", ShardOutput(parts))
    return output


def clips_with(folder: Folder, broken: Sequence[str] = ()) -> StageFolder:
    rows = [
        clip_row(clip, video_of(clip), clip.partition("/")[0], BROKEN if clip in broken else square_clip(fading=lost))
        for clip, lost in REFERENCE.items()
    ]
    return clips_of(folder, rows)


def worker_of(
    folder: Folder, broken: Sequence[str] = (), classes: Sequence[str] = ("blue", "fades", "red"), **extract: Any
) -> ResponseWorker:
    clips = clips_with(folder, broken)
    shards = clip_shards(clips, set(REFERENCE))
    config = config_of(resources={"extract": extract}) if extract else config_of()
    return ResponseWorker(config, clips, activations_of(folder), classes, shards, None)


def shard(clips: Sequence[str] = ("down", "up"), *, reports: bool = True) -> pa.Table:
    rows = [{"layer": "early", "clip_id": clip, "video_id": video_of(clip), "reports": reports} for clip in clips]
    return pa.Table.from_pylist(rows)


def responses_of(output: ShardOutput) -> dict[tuple[str, str], np.ndarray]:
    table = output.tables["responses/layer=early"]
    assert table.schema == tables.RESPONSES
    return {(row["clip_id"], row["class"]): np.array(row["responses"]) for row in table.to_pylist()}


def fades(lost: int) -> float:
    """Return the logit `fades` of a reference clip, which no shift of the whole clip changes."""
    return 4 * lost / 255 * SQUARE**2 / SIDE**2


def test_the_response_is_the_logit_of_the_pool_clips_colours(tmp_path: Path) -> None:
    """The values are in the order of the reference clips' ids: blue/c, red/a, red/b."""
    output = worker_of(Folder(str(tmp_path)))(shard())
    found = responses_of(output)
    assert set(found) == {(clip, name) for clip in POOL for name in ("blue", "fades", "red")}
    for clip, (red, _, blue) in POOL.items():
        np.testing.assert_allclose(found[clip, "red"], [WEIGHT * red] * 3, rtol=1e-5)
        np.testing.assert_allclose(found[clip, "blue"], [WEIGHT * blue] * 3, rtol=1e-5)
        own = [fades(REFERENCE[name]) for name in sorted(REFERENCE)]
        np.testing.assert_allclose(found[clip, "fades"], own, rtol=1e-4, atol=1e-6)
    assert output.failures == []
    assert output.metrics == {"clips": 2, "passes": 2 * 3}
    assert output.warnings == []


def test_a_batch_size_does_not_change_the_responses(tmp_path: Path) -> None:
    one, many = (
        responses_of(worker_of(Folder(str(tmp_path / str(size))), batch_size=size)(shard())) for size in (1, 8)
    )
    for key, values in one.items():
        np.testing.assert_allclose(values, many[key], rtol=1e-5, atol=1e-6)


def test_a_broken_reference_clip_has_no_value_and_is_reported_once(tmp_path: Path) -> None:
    worker = worker_of(Folder(str(tmp_path)), broken=["red/a"])
    output = worker(shard(["up"]))
    assert [(f.clip_id, f.video_id, f.error_kind) for f in output.failures] == [("red/a", "a", "decode")]
    found = responses_of(output)
    assert np.isnan(found["up", "red"]).tolist() == [False, True, False]
    np.testing.assert_allclose(found["up", "red"][[0, 2]], WEIGHT * 0.5, rtol=1e-5)
    assert worker(shard(["down"], reports=False)).failures == []


def test_a_pool_clip_with_an_endless_response_is_a_failure(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    clips, activations = clips_with(folder), activations_of(folder, {**POOL, "bright": [3e38, 0.0, 0.0]})
    worker = ResponseWorker(config_of(), clips, activations, ["red"], clip_shards(clips, set(REFERENCE)), None)
    output = worker(shard(["bright", "down"]))
    assert [(f.clip_id, f.error_kind) for f in output.failures] == [("bright", "non_finite")]
    assert "patched into layer `early`" in output.failures[0].message
    assert {clip for clip, _ in responses_of(output)} == {"down"}
    assert output.metrics["clips"] == 1
    assert worker(shard(["bright"])).tables == {}


def test_the_stage_makes_shards_of_the_pool_and_its_worker_takes_them(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    inputs = {"clips": clips_with(folder), "activations": activations_of(folder)}
    work = STAGE.prepare(Context(config_of(), folder, inputs))
    (one,) = work.shards
    assert one.rows["clip_id"].to_pylist() == sorted(POOL)
    assert one.rows["reports"].to_pylist() == [True, True]
    assert work.notes["references"] == 3
    found = responses_of(work.make_worker()(one.rows))
    assert {name for _, name in found} == {"red", "blue"}  # the classes with gradients
    np.testing.assert_allclose(found["up", "blue"], WEIGHT * 0.2, rtol=1e-5)


def test_without_a_pool_there_is_nothing_to_put(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    inputs = {"clips": clips_with(folder), "activations": activations_of(folder, {})}
    with pytest.raises(StageError, match="no concept clips and no random clips"):
        STAGE.prepare(Context(config_of(), folder, inputs))


def test_what_stops_every_response_stops_the_stage(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no class 'juggle'"):
        worker_of(Folder(str(tmp_path / "class")), classes=["juggle", "red"])
    worker = worker_of(Folder(str(tmp_path / "broken")), broken=list(REFERENCE))
    with pytest.raises(StageError, match="No reference clip can be decoded"):
        worker(shard())


def test_the_reference_is_limited_evenly_over_the_classes(tmp_path: Path) -> None:
    activations = activations_of(Folder(str(tmp_path)))
    assert read_reference(activations, "early", None, 0).num_rows == 6
    limited = read_reference(activations, "early", 2, 0)
    names = {clip.partition("/")[0] for clip in limited["clip_id"].to_pylist()}
    assert names == {"red", "blue"}
    assert limited.num_rows == 4
    assert read_reference(activations, "early", 9, 0).num_rows == 6


def test_a_run_without_a_reference_set_is_refused(tmp_path: Path) -> None:
    none = activations_of(Folder(str(tmp_path / "none")), flag=False)
    with pytest.raises(ConfigError, match="no reference set"):
        read_reference(none, "early", None, 0)
    with pytest.raises(ConfigError, match="no reference set"):
        read_reference(none, "late", None, 0)
    old = stage_folder(Folder(str(tmp_path / "old")), "activations", "k")
    old.commit("0", ShardOutput({"gradients/layer=early": pa.table({"clip_id": ["a"]})}))
    with pytest.raises(ConfigError, match="older version"):
        read_reference(old, "early", None, 0)


def test_clips_are_found_in_their_shards(tmp_path: Path) -> None:
    clips = clips_with(Folder(str(tmp_path)))
    assert clip_shards(clips, {"red/b", "blue/c"}) == {"0": ["blue/c", "red/b"]}
    assert clip_shards(clips, set()) == {}
    with pytest.raises(StageError, match="red/z is not in the table"):
        clip_shards(clips, {"red/a", "red/z"})

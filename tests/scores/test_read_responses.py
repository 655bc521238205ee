"""The responses that the stage `scores` reads: by class, clip and source video of the reference clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vtcav_ray import tables
from vtcav_ray.cavs.jobs import Pool
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import StageError
from vtcav_ray.scores.layer_data import ClassGradients, LayerClips
from vtcav_ray.scores.responses import ReadResponses, filled
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.vectors import vector_array

NAN = float("nan")
# Reference clips in the order of their ids: a/1 and a/2 are of the video va, b/1 of vb. c/1 is no reference clip.
EXAMPLES = [("a/1", "va", True), ("a/2", "va", True), ("b/1", "vb", True), ("c/1", "vc", False)]
CLASS_OF = {"a/1": "lift", "a/2": "lift", "b/1": "drop", "c/1": "lift"}
# Class -> clip of the pool -> response at each reference clip.
RESPONSES = {
    "lift": {"cup": [1.0, 3.0, 7.0], "random": [0.0, 1.0, -1.0]},
    "drop": {"cup": [2.0, 2.0, 0.0], "random": [4.0, 6.0, 1.0]},
}


def config(*layers: str) -> Config:
    return parse_config(
        {"videos": {"uri": "x"}, "activations": {"layers": list(layers)}, "scores": {"effect": "patch"}}
    )


def gradients_of(layer: str) -> pa.Table:
    rows = [(clip, video, name, inside) for clip, video, inside in EXAMPLES for name in ("lift", "drop")]
    n = len(rows)
    columns: dict[str, Any] = {
        "clip_id": [row[0] for row in rows], "video_id": [row[1] for row in rows], "class": [row[2] for row in rows],
        "layer": [layer] * n, "target": ["logit"] * n, "value": [float(i) for i in range(n)],
        "predicted": ["lift"] * n, "reference": [row[3] for row in rows], "gain": [1.0] * n, "margin": [1.0] * n,
        "views": [1] * n, "model": ["m@1"] * n, "vector": vector_array(np.zeros((n, 2), np.float32)),
    }  # fmt: skip
    return pa.table(columns, schema=tables.gradients(2))


def response_table(layer: str, responses: dict[str, dict[str, list[float]]]) -> pa.Table:
    rows = [
        {"clip_id": clip, "video_id": f"v-{clip}", "class": name, "layer": layer, "responses": values, "model": "m@1"}
        for name, of_clip in responses.items()
        for clip, values in of_clip.items()
    ]
    return pa.Table.from_pylist(rows, schema=tables.RESPONSES)


def stage(place: Path, name: str, parts: dict[str, pa.Table]) -> StageFolder:
    output = stage_folder(Folder(str(place)), name, "k")
    output.commit("0", ShardOutput(parts))
    output.finish({}, {"notes": {}, "warnings": []})
    return output


def reader(
    place: Path, by_layer: dict[str, dict[str, dict[str, list[float]]]], *layers: str
) -> tuple[ReadResponses, pa.Table]:
    """Return the reader, and the gradients of the layer `late`."""
    activations = stage(place, "activations", {"gradients/layer=late": gradients_of("late")})
    parts = {f"responses/layer={layer}": response_table(layer, found) for layer, found in by_layer.items()}
    responses = stage(place, "responses", parts)
    return ReadResponses(responses, activations, config(*(layers or ("late",)))), gradients_of("late")


def test_responses_are_means_over_the_clips_of_each_reference_video(tmp_path: Path) -> None:
    read, gradients = reader(tmp_path, {"late": RESPONSES})
    found = read.of_classes("late", ["random", "absent", "cup"], gradients, ["lift", "drop"])
    np.testing.assert_equal(found["lift"], [[0.5, -1], [NAN, NAN], [2, 7]])
    np.testing.assert_equal(found["drop"], [[5, 1], [NAN, NAN], [2, 0]])


def test_a_reference_clip_that_could_not_be_decoded_does_not_count(tmp_path: Path) -> None:
    broken = {"lift": {"cup": [NAN, 3.0, 7.0], "random": [NAN, 1.0, -1.0]}}
    read, gradients = reader(tmp_path, {"late": broken})
    assert read.of_classes("late", ["cup", "random"], gradients, ["lift"])["lift"].tolist() == [[3, 7], [1, -1]]


def test_a_video_without_a_decoded_clip_has_no_column(tmp_path: Path) -> None:
    read, gradients = reader(tmp_path, {"late": {"lift": {"cup": [1.0, 3.0, NAN], "random": [0.0, 1.0, NAN]}}})
    assert read.of_classes("late", ["cup", "random"], gradients, ["lift"])["lift"].tolist() == [[2], [0.5]]


def test_a_reference_clip_that_a_person_left_out_does_not_count(tmp_path: Path) -> None:
    read, gradients = reader(tmp_path, {"late": RESPONSES})
    left = gradients.filter(pa.array([clip != "a/2" for clip in gradients["clip_id"].to_pylist()]))
    assert read.of_classes("late", ["cup"], left, ["lift"])["lift"].tolist() == [[1, 7]]


def test_clips_count_that_have_responses_at_every_layer(tmp_path: Path) -> None:
    read, _ = reader(tmp_path, {"late": RESPONSES, "head": {"lift": {"cup": [0.0, 0.0, 0.0]}}}, "late", "head")
    assert read.there(["cup", "random", "absent"]).tolist() == [True, False, False]
    nowhere, _ = reader(tmp_path / "other", {"late": RESPONSES}, "late", "head")
    assert not nowhere.there(["cup", "random"]).any()


def test_what_is_missing_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    read, gradients = reader(tmp_path, {"late": RESPONSES})
    with pytest.raises(StageError, match=r"no responses at the layer `late`.*vtcav table RUN failures"):
        read.of_classes("late", ["absent"], gradients, ["lift"])
    with pytest.raises(StageError, match="no responses at the layer `late`"):
        read.of_classes("late", ["cup"], gradients, ["juggle"])
    unused = gradients.filter(pa.array([False] * gradients.num_rows))
    with pytest.raises(StageError, match="no reference clip is left"):
        read.of_classes("late", ["cup"], unused, ["lift"])


def test_responses_of_another_reference_set_are_refused(tmp_path: Path) -> None:
    read, gradients = reader(tmp_path, {"late": {"lift": {"cup": [1.0, 2.0]}}})
    with pytest.raises(StageError, match=r"another reference set.*Run again"):
        read.of_classes("late", ["cup"], gradients, ["lift"])


def test_reference_clips_that_all_failed_are_refused(tmp_path: Path) -> None:
    read, gradients = reader(tmp_path, {"late": {"lift": {"cup": [NAN] * 3}}})
    with pytest.raises(StageError, match="No reference clip is left"):
        read.of_classes("late", ["cup"], gradients, ["lift"])


def test_a_layers_clips_get_their_responses_and_targets(tmp_path: Path) -> None:
    read, gradients = reader(tmp_path, {"late": RESPONSES})
    pool = Pool(["concept", "random"], ["cup/spatial", "random/spatial"], ["spatial"] * 2, ["v-cup", "v-random"])
    classes = [ClassGradients(name, np.zeros((1, 2), np.float32), ["va"], gain=5.0) for name in ("lift", "drop")]
    clips = LayerClips("late", "m@1", pool, ["cup", "absent"], np.zeros((2, 2), np.float32), classes)
    assert not clips.patched
    found = read.added_to(clips, gradients, CLASS_OF)
    assert found.patched
    assert found.there_N is not None
    assert found.there_N.tolist() == [True, False]
    lift, drop = found.classes
    np.testing.assert_equal(lift.responses_NV, [[2, 7], [NAN, NAN]])
    assert (lift.gain, drop.gain) == (1.0, 1.0)
    assert lift.targets is not None
    assert drop.targets is not None
    # Values count the rows: `lift` has the even ones. c/1 is outside of the reference set, and of the class `lift`.
    assert list(lift.targets.values) == [0, 2, 4, 6]
    assert list(lift.targets.labels) == ["lift", "lift", "drop", "lift"]
    assert list(lift.targets.videos) == ["va", "va", "vb", "vc"]
    assert list(drop.targets.values) == [1, 3, 5]


def test_rows_without_responses_get_the_mean_of_the_others() -> None:
    values = np.array([[1.0, 4.0], [NAN, NAN], [3.0, 0.0]])
    assert filled(values, np.array([True, False, True])).tolist() == [[1, 4], [2, 2], [3, 0]]

"""The stage's worker without Ray: tables, failures per clip, and the one batch size of all workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from vtcav_ray import tables
from vtcav_ray.activations.stage import BATCH_SIZE_FILE, STAGE, ExtractWorker
from vtcav_ray.clips.stage import contents_of
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError
from vtcav_ray.runs.carry import CarryingWorker, carry
from vtcav_ray.runs.stage import Context, Shard
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.video.codec import decode_clip, encode_clip

LAYERS = ("early", "late")


def config(**resources: Any) -> Config:
    return parse_config(
        {
            "videos": {"uri": "none"},
            "model": {"checkpoint": "untrained"},
            "activations": {"layers": LAYERS, "views": "test", "dtype": "float16"},
            "resources": {"extract": resources},
        }
    )


def clip_table(count: int, *, seed: int = 0) -> pa.Table:
    """Make a clips table in which every other clip is a class example."""
    stream = np.random.RandomState(seed)
    rows = []
    for i in range(count):
        encoding, encoded = encode_clip(stream.randint(0, 256, (16, 64, 64, 3), np.uint8))
        row = dict.fromkeys(tables.CLIPS.names) | {
            "clip_id": f"clip{seed}-{i}", "video_id": f"video{i}", "name": "lift", "kind": "full", "label": "lift",
            "set": "class" if i % 2 == 0 else "random", "encoding": encoding, "encoded": encoded,
        }  # fmt: skip
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=tables.CLIPS)


def stored(folder: Path, table: pa.Table, shard: str = "s") -> StageFolder:
    clips = StageFolder("clips", "k", Folder(str(folder / "clips" / "k")))
    clips.commit(shard, ShardOutput({"clips": table}))
    return clips


def worked(worker: ExtractWorker, shard: str = "s") -> ShardOutput:
    return worker(pa.table({"shard": [shard]}))


@pytest.mark.slow
def test_a_damaged_clip_and_one_that_is_not_finite_are_failures_that_name_the_layer(tmp_path: Path) -> None:
    table = clip_table(5)
    encoded = table["encoded"].to_pylist()
    encoded[1] = encoded[1][: len(encoded[1]) // 2]
    place = table.schema.get_field_index("encoded")
    table = table.set_column(place, table.schema.field(place), pa.array(encoded, pa.binary()))
    worker = ExtractWorker(config(), stored(tmp_path, table), Folder(str(tmp_path / "out")))

    def spoil(_: nn.Module, __: object, out: torch.Tensor) -> torch.Tensor:
        if len(out) == 3:  # the batch of the class examples: clips 0, 2 and 4
            out = out.clone()
            out[1, 0, 0, 0, 0] = torch.nan
        return out

    handle = worker.recogniser.module.get_submodule("backbone.layers.2").register_forward_hook(spoil)
    found = worked(worker)
    handle.remove()
    failures = {failure.clip_id: failure for failure in found.failures}
    assert {name: failure.error_kind for name, failure in failures.items()} == {
        "clip0-1": "decode",
        "clip0-2": "non_finite",
    }
    assert "`late`" in failures["clip0-2"].message
    for layer in LAYERS:
        activations = found.tables[f"activations/layer={layer}"]
        gradients = found.tables[f"gradients/layer={layer}"]
        # In the order of the clips, although class examples and other clips are in separate model calls.
        assert activations["clip_id"].to_pylist() == ["clip0-0", "clip0-3", "clip0-4"]
        assert gradients["clip_id"].to_pylist() == ["clip0-0", "clip0-4"]
        assert activations.schema.field("vector").type.value_type == pa.float16()
        assert gradients.schema.field("vector").type.value_type == pa.float32()
        assert activations.schema.names == tables.activations(1).names
        assert np.isfinite(vectors_of(activations)).all()
        assert set(activations["views"].to_pylist()) == {worker.extractor._views_each()}


@pytest.mark.slow
def test_what_float16_can_not_hold_is_a_failure(tmp_path: Path) -> None:
    worker = ExtractWorker(config(), stored(tmp_path, clip_table(3)), Folder(str(tmp_path / "out")))

    def enlarge(_: nn.Module, __: object, out: torch.Tensor) -> torch.Tensor:
        return out * 1e9 if len(out) == 1 else out  # the batch of the one random clip

    layer = worker.recogniser.module.get_submodule(worker.extractor.paths["early"])
    handle = layer.register_forward_hook(enlarge)
    found = worked(worker)
    handle.remove()
    (failure,) = found.failures
    assert (failure.clip_id, failure.error_kind) == ("clip0-1", "non_finite")
    assert "too large for float16. Set `activations.dtype: float32`" in failure.message
    assert found.tables["activations/layer=early"]["clip_id"].to_pylist() == ["clip0-0", "clip0-2"]


@pytest.mark.slow
def test_a_table_is_made_with_one_batch_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds even if the GPU's memory runs out in the middle of the table."""
    clips = stored(tmp_path, clip_table(6))
    expected = worked(ExtractWorker(config(batch_size=1), clips, Folder(str(tmp_path / "a"))))
    worker = ExtractWorker(config(batch_size=2), clips, Folder(str(tmp_path / "b")))
    run, calls = worker.extractor._run, []

    def small_gpu(x: torch.Tensor, members: list[int], *rest: Any) -> Any:
        calls.append(len(members))
        if len(members) > 1 and len(calls) > 1:
            raise torch.OutOfMemoryError("too much")
        return run(x, members, *rest)

    monkeypatch.setattr(worker.extractor, "_run", small_gpu)
    found = worked(worker)
    assert calls[0] == 2
    assert calls[-6:] == [1] * 6
    assert all(found.tables[name].equals(expected.tables[name]) for name in expected.tables)


@pytest.mark.slow
def test_classes_that_only_the_checkpoint_knows_are_asked_for_by_any_spelling(tmp_path: Path) -> None:
    clips = stored(tmp_path, clip_table(1))
    settings = {"activations": {"layers": LAYERS, "classes": "listed"}, "clips": {"classes": ["Put-Down"]}}
    one = parse_config({"videos": {"uri": "none"}, "model": {"checkpoint": "untrained"}, **settings})
    gradients = worked(ExtractWorker(one, clips, Folder(str(tmp_path)))).tables["gradients/layer=late"]
    assert gradients["class"].to_pylist() == ["lift", "put_down"]
    other = one.model_copy(update={"clips": one.clips.model_copy(update={"classes": ("no such",)})})
    with pytest.raises(ConfigError, match=r"`clips.classes`: the model has no class 'no such'"):
        ExtractWorker(other, clips, Folder(str(tmp_path)))


@pytest.mark.parametrize(("frames", "interval", "reported"), [(16, 1, 0), (16, 2, 1), (8, 1, 1)])
def test_frames_other_than_the_models_own_are_reported(
    tmp_path: Path, frames: int, interval: int, reported: int
) -> None:
    """The planted world's recogniser takes 16 frames, 1 apart."""
    one = config()
    one = one.model_copy(update={"clips": one.clips.model_copy(update={"frames": frames, "interval": interval})})
    clips = stored(tmp_path, clip_table(1))
    warnings = STAGE.prepare(Context(one, Folder(str(tmp_path)), {"clips": clips})).warnings
    found = [sentence for sentence in warnings if "samples 16 frames, 1 apart" in sentence]
    assert len(found) == reported


def test_a_shard_of_nothing_but_damaged_clips(tmp_path: Path) -> None:
    table = clip_table(3)
    place = table.schema.get_field_index("encoded")
    table = table.set_column(place, table.schema.field(place), pa.array([b"no clip"] * 3, pa.binary()))
    worker = ExtractWorker(
        config(batch_size="auto", memory_gb=1e-3), stored(tmp_path, table), Folder(str(tmp_path / "out"))
    )
    found = worked(worker)
    assert not found.tables
    assert [failure.error_kind for failure in found.failures] == ["decode"] * 3


@pytest.mark.slow
def test_all_actors_and_later_runs_use_the_batch_size_that_the_first_one_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = stored(tmp_path, clip_table(5))
    output = Folder(str(tmp_path / "out"))
    first = ExtractWorker(config(batch_size="auto", memory_gb=1e-3), clips, output)
    worked(first)
    agreed = output.read_json(BATCH_SIZE_FILE)["views"]
    assert agreed == first.extractor.batch_size
    # A worker that started at the same time and found another size: the size written first holds.
    second = ExtractWorker(config(batch_size="auto", memory_gb=1e-3), clips, output)
    monkeypatch.setattr(second.extractor, "choose_batch_size", _chooses(second, 7))
    monkeypatch.setattr(Folder, "exists", lambda *_: False)
    worked(second)
    assert second.extractor.batch_size == agreed
    monkeypatch.undo()
    # A resumed run makes no trial.
    output.write_json(BATCH_SIZE_FILE, {"views": 3})
    third = ExtractWorker(config(batch_size="auto", memory_gb=1e-3), clips, output)
    monkeypatch.setattr(third.extractor, "choose_batch_size", None)
    worked(third)
    assert third.extractor.batch_size == 3
    given = ExtractWorker(config(batch_size=2), clips, output)
    worked(given)
    assert given.extractor.batch_size == 2


def _chooses(worker: ExtractWorker, size: int) -> Any:
    def choose(*_: object, **__: object) -> int:
        worker.extractor.batch_size = size
        return size

    return choose


def test_the_place_where_they_agree_is_the_stage_s_own_folder(tmp_path: Path) -> None:
    run = Folder(str(tmp_path))
    clips = stored(tmp_path, clip_table(1))
    clips.finish({}, {})
    assert clips.folder == stage_folder(run, "clips", "k").folder
    context = Context(config(), run, {"clips": clips})
    worker = STAGE.prepare(context).make_worker()
    assert isinstance(worker, ExtractWorker)
    assert worker.output.url == str(tmp_path / "activations" / STAGE.key(context))
    assert json.loads(worker.output.write_once("x.json", b"1")) == 1
    assert json.loads(worker.output.write_once("x.json", b"2")) == 1


@pytest.mark.slow
def test_a_retry_computes_what_failed_and_the_files_are_those_of_a_run_without_failures(tmp_path: Path) -> None:
    """Two of six videos were damaged at first. The other four are carried over and keep their places."""
    good = clip_table(6)
    encoded = good["encoded"].to_pylist()
    bad = [data[: len(data) // 2] if i in (0, 3) else data for i, data in enumerate(encoded)]
    place = good.schema.get_field_index("encoded")
    damaged = good.set_column(place, good.schema.field(place), pa.array(bad, pa.binary()))

    def shards(table: pa.Table) -> list[Shard]:
        contents = contents_of(table)
        return [Shard("s", contents.add_column(0, "shard", pa.array(["s"] * contents.num_rows)))]

    def output(name: str) -> StageFolder:
        return StageFolder("activations", name, Folder(str(tmp_path / "out" / name)))

    # Clip by clip: some processors compute batches of two and of six clips in another order.
    worker = ExtractWorker(config(batch_size=1), stored(tmp_path / "damaged", damaged), output("first").folder)
    first, whole, retried = output("first"), output("whole"), output("retried")
    assert first.commit("s", worker(shards(damaged)[0].rows))["failures"] == 2
    first.finish({}, {})
    worker.clips = stored(tmp_path / "good", good)
    done = whole.commit("s", worker(shards(good)[0].rows))

    carried = carry(shards(good), shards(damaged), first)
    assert (carried.units, carried.kept) == (6, 4)
    again = retried.commit("s", CarryingWorker(lambda: worker, first)(carried.shards[0].rows))
    assert (again["metrics"]["worked_on"], again["metrics"]["clips"], again["metrics"]["carried"]) == (2, 2, 4)
    assert again["files"] == done["files"]  # rows, bytes and SHA-256
    assert again["failures"] == 0


@pytest.mark.slow
def test_every_clip_has_its_logits_and_the_gain_of_each_layer(tmp_path: Path) -> None:
    table = clip_table(5)
    worker = ExtractWorker(config(), stored(tmp_path, table), Folder(str(tmp_path / "out")))
    answers = worked(worker).tables["answers"]
    assert answers.schema.equals(tables.ANSWERS)
    assert tables.classes_of(answers) == list(worker.recogniser.class_names)
    assert answers["clip_id"].to_pylist() == table["clip_id"].to_pylist()
    names = list(worker.recogniser.class_names)
    clips = [decode_clip(row["encoding"], row["encoded"]) for row in table.to_pylist()]
    logits = worker.recogniser.logits(worker.recogniser.preprocess(clips, "test").flatten(0, 1))
    expected = logits.reshape(5, -1, len(names)).mean(1).numpy()
    for row, want in zip(answers.to_pylist(), expected, strict=True):
        np.testing.assert_allclose(row["logits"], want, rtol=1e-4, atol=1e-4)
        assert row["predicted"] == names[int(np.argmax(row["logits"]))]
        shapes = [worker.extractor.shapes()[layer] for layer in LAYERS]
        assert row["gains"] == [t * h * w for t, h, w, _ in shapes]  # `mean`: the number of positions

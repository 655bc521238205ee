"""Hostile ONNX files: references to other files, operators of a library, names that are code, huge tensors."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.tracks.detect import Detector
from vtcav_ray.tracks.onnx_files import checked_onnx, read_stated_names

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
ROWS = np.arange(6 * 4, dtype=np.float32).reshape(1, 6, 4)


def model(
    nodes: list[Any] | None = None,
    constants: list[Any] | None = None,
    *,
    shape: list[Any] | None = None,
    names: str = "{0: 'cup', 1: 'ball'}",
    **more: Any,
) -> Any:
    """Make a network that answers `said` for every picture: an initializer or the output of its nodes."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [*(nodes or []), helper.make_node("Identity", ["said"], ["output"])],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64] if shape is None else shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(ROWS, "said")] if constants is None else constants,
    )
    opsets = [helper.make_opsetid(domain, 17 if not domain else 1) for domain in ("", "com.microsoft", "evil")]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=9, **more)
    helper.set_model_props(made, {"names": names})
    return made


def external(
    location: str, offset: str | None = None, length: str | None = None, size: tuple[int, ...] = ROWS.shape
) -> Any:
    tensor = onnx.TensorProto(name="said", data_type=onnx.TensorProto.FLOAT, dims=size)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    return tensor


def put(folder: Path, made: Any) -> TracksConfig:
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    return TracksConfig(weights=str(folder / "model.onnx"), image_size=64, batch_size=1)


def refused(folder: Path, made: Any, *words: str) -> None:
    config = put(folder, made)
    with pytest.raises((StageError, ConfigError)) as caught:
        Detector(config, "cpu")(np.zeros((1, 64, 64, 3), np.uint8))
    for word in ("model.onnx", *words):
        assert word in str(caught.value)


def test_external_data_is_read_from_beside_the_model_and_never_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "cwd", tmp_path / "model"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    (here / "w.bin").write_bytes((ROWS + 100).tobytes())
    config = put(there, model(constants=[external("w.bin")]))
    with pytest.raises(StageError, match="no such file beside it"):
        Detector(config, "cpu")
    (there / "w.bin").write_bytes(ROWS.tobytes())
    detector: Any = Detector(config, "cpu")
    assert np.array_equal(detector._backend._run(np.zeros((1, 3, 64, 64), np.float32))[0], ROWS)


def test_external_data_of_a_remote_model_is_read_from_beside_it() -> None:
    with fsspec.open("memory://onnx/m.onnx", "wb") as file:
        file.write(model(constants=[external("w.bin", "4", str(ROWS.nbytes))]).SerializeToString())
    with fsspec.open("memory://onnx/w.bin", "wb") as file:
        file.write(b"skip" + ROWS.tobytes())
    detector: Any = Detector(TracksConfig(weights="memory://onnx/m.onnx"), "cpu")
    assert np.array_equal(detector._backend._run(np.zeros((1, 3, 64, 64), np.float32))[0], ROWS)


@pytest.mark.parametrize(
    "location",
    ["../secret.bin", "{tmp}/secret.bin", "sub/../../secret.bin", "link.bin", "..", ".", "", "a\\b", "s3://b/k",
     "file:secret.bin", "w.bin\x00", "sub/w.bin"],
)  # fmt: skip
def test_external_data_is_taken_from_nowhere_else(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.bin").write_bytes(ROWS.tobytes())
    (folder / "sub" / "w.bin").write_bytes(ROWS.tobytes())
    os.symlink(tmp_path / "secret.bin", folder / "link.bin")
    refused(folder, model(constants=[external(location.replace("{tmp}", str(tmp_path)))]), "refused")


def test_external_data_hides_nowhere(tmp_path: Path) -> None:
    """It is found in a constant node, in the body of a branch, in a function, and in sparse values."""
    from onnx import helper

    hidden = external("../secret.bin")
    constant = helper.make_node("Constant", [], ["said"], value=hidden)
    refused(tmp_path, model([constant], []), "refused")
    body = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("said", 1, None)])
    yes = helper.make_tensor("yes", onnx.TensorProto.BOOL, [], [True])
    branch = helper.make_node("If", ["yes"], ["said"], then_branch=body, else_branch=body)
    refused(tmp_path, model([branch], [yes]), "refused")
    function = helper.make_function("evil", "f", [], ["said"], [constant], [helper.make_opsetid("", 17)])
    refused(tmp_path, model([helper.make_node("f", [], ["said"], domain="evil")], [], functions=[function]), "refused")
    sparse = onnx.SparseTensorProto(values=hidden, dims=[24])
    made = model([helper.make_node("Constant", [], ["said"], sparse_value=sparse)], [])
    refused(tmp_path, made, "refused")


@pytest.mark.parametrize(
    ("offset", "length", "size"),
    [("-4", None, (6,)), ("0", "1000000000", (6,)), ("x", None, (6,)), ("90", "96", (24,)), ("1e3", None, (6,)),
     ("0", "-1", (6,)), ("9" * 5000, None, (6,))],
)  # fmt: skip
def test_external_data_is_held_to_its_files_size(
    tmp_path: Path, offset: str, length: str | None, size: tuple[int, ...]
) -> None:
    (tmp_path / "w.bin").write_bytes(ROWS.tobytes())
    refused(tmp_path, model(constants=[external("w.bin", offset, length, size)]), "refused")


def test_many_tensors_of_one_external_file_are_held_to_its_size(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(ROWS.tobytes())
    tensors = [external("w.bin") for _ in range(50)]
    for number, tensor in enumerate(tensors[1:]):
        tensor.name = f"t{number}"
    refused(tmp_path, model(constants=tensors), "more from 'w.bin'")


def test_operators_of_a_library_are_refused_by_name(tmp_path: Path) -> None:
    from onnx import helper

    for domain, operator in (("evil", "Run"), ("org.pytorch.aten", "ATen"), ("com.microsoft", "EPContext")):
        refused(tmp_path, model([helper.make_node(operator, ["images"], ["said"], domain=domain)], []), operator)
    inner = helper.make_node("Run", ["images"], ["said"], domain="evil")
    body = helper.make_graph([inner], "b", [], [helper.make_tensor_value_info("said", 1, None)])
    yes = helper.make_tensor("yes", onnx.TensorProto.BOOL, [], [True])
    refused(
        tmp_path, model([helper.make_node("If", ["yes"], ["said"], then_branch=body, else_branch=body)], [yes]), "Run"
    )


def test_a_few_bytes_may_not_ask_for_terabytes(tmp_path: Path) -> None:
    from onnx import helper, numpy_helper

    def whole(name: str, values: list[int]) -> Any:
        return numpy_helper.from_array(np.array(values, np.int64), name)

    huge = [1 << 20, 1 << 20]
    made = model([helper.make_node("ConstantOfShape", ["size"], ["said"])], [whole("size", huge)])
    assert len(made.SerializeToString()) < 1000
    refused(tmp_path, made, "size")
    one = numpy_helper.from_array(np.ones((1, 1), np.float32), "one")
    refused(
        tmp_path, model([helper.make_node("Expand", ["one", "size"], ["said"])], [one, whole("size", huge)]), "size"
    )
    refused(tmp_path, model([helper.make_node("Tile", ["one", "size"], ["said"])], [one, whole("size", huge)]), "size")
    bare = onnx.TensorProto(name="said", data_type=1, dims=[1 << 31, 1 << 31])
    refused(tmp_path, model(constants=[bare]), "size")
    negative = onnx.TensorProto(name="said", data_type=1, dims=[-1])
    refused(tmp_path, model(constants=[negative]), "size")


@pytest.mark.parametrize(
    "shape", [[], [1, 3, 64], [1, 3, 1 << 30, 1 << 20], [1, 3, 100_000, 32], [1, 3, 0, 64], [1, 3, 64, 64, 1]]
)
def test_inputs_that_are_no_picture_are_reported(tmp_path: Path, shape: list[int]) -> None:
    refused(tmp_path, model(shape=shape))


def test_answers_of_a_class_without_a_name_are_reported_and_no_box_is_infinite(tmp_path: Path) -> None:
    from onnx import numpy_helper

    for number in (2.0, -1.0, 1e30, float("nan"), 1e9):
        row = np.array([[[1, 1, 9, 9, 0.9, number]]], np.float32)
        config = put(tmp_path, model(constants=[numpy_helper.from_array(row, "said")]))
        detector = Detector(config, "cpu")
        frames = np.zeros((1, 64, 64, 3), np.uint8)
        if np.isnan(number):
            assert len(detector(frames)[0].boxes) == 0
            continue
        with pytest.raises(StageError, match="class"):
            detector(frames)
    row = np.array([[[np.nan, 1, 9, 9, 0.9, 0], [1, 1, np.inf, 9, 0.9, 0], [1, 1, 9, 9, 0.9, 1]]], np.float32)
    detector = Detector(put(tmp_path, model(constants=[numpy_helper.from_array(row, "said")])), "cpu")
    (found,) = detector(np.zeros((1, 64, 64, 3), np.uint8))
    assert found.classes.tolist() == [1]


def test_answers_that_are_no_numbers_are_reported(tmp_path: Path) -> None:
    text = onnx.TensorProto(name="said", data_type=onnx.TensorProto.STRING, dims=[1], string_data=[b"x"])
    made = model(constants=[text])
    made.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    refused(tmp_path, made)


def test_onnx_runtimes_own_format_is_not_let_in_under_the_name_of_onnx(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x00\x00\x00\x00ORTM" + bytes(64))
    with pytest.raises(StageError, match="own format"):
        Detector(TracksConfig(weights=str(tmp_path / "model.onnx")), "cpu")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{0: 'cup', 1: 'ball'}", {0: "cup", 1: "ball"}),
        ("{0: \"it's\", 1: 'a \\'b\\'', 2: 'x\\u00e9'}", {0: "it's", 1: "a 'b'", 2: "xé"}),
        ('{"0": "cup", "1": "ball"}', {0: "cup", 1: "ball"}),
        ("['cup', 'ball',]", {0: "cup", 1: "ball"}),
        ('["cup"]', {0: "cup"}),
        ("{}", {}),
        ("{0: 'a: b, c'}", {0: "a: b, c"}),
    ],
)
def test_stated_names_are_read(text: str, names: dict[int, str]) -> None:
    assert read_stated_names(text) == names


NO_NAMES = [
    "__import__('os').mkdir('{canary}')", "{0: __import__('os').mkdir('{canary}')}", "{0: 'a'} if 1 else 2",
    "(" * 100_000, "-" * 1_000_000 + "1", "{0: " * 50_000, "[" * 100_000 + "]" * 100_000, "{0: 1}", "{'a': 'b'}",
    "{0: 'a' 1: 'b'}", "{" + "9" * 5000 + ": 'a'}", "{0: 'a" + "\\" * 100_001 + "'}x", "lambda: 0", "",
    "['a', 0: 'b']", "{0: f'{1}'}",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_NAMES, ids=[str(i) for i in range(len(NO_NAMES))])
def test_stated_names_that_are_no_names_are_reported_and_not_run(tmp_path: Path, text: str) -> None:
    canary = tmp_path / "ran"
    text = text.replace("{canary}", str(canary))
    with pytest.raises(ValueError):
        read_stated_names(text)
    refused(tmp_path, model(names=text or "''"), "metadata")
    assert not canary.exists()


@pytest.mark.slow
@examples(300)
@given(st.dictionaries(st.integers(0, 999), st.text(st.characters(codec="utf-8"), max_size=30), max_size=5))
def test_whatever_python_writes_of_names_is_read_again(names: dict[int, str]) -> None:
    assert read_stated_names(str(names)) == names


@examples(300)
@given(st.one_of(st.text(max_size=60), st.text(alphabet="{}[]():,'\"\\0123 ab", max_size=60)))
def test_any_metadata_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        found = read_stated_names(text)
        assert all(isinstance(k, int) and isinstance(v, str) for k, v in found.items())


@pytest.mark.slow
@examples(150)
@given(data=st.data())
def test_any_damage_to_a_model_is_a_clear_error(data: st.DataObject) -> None:
    content = bytearray(model().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(1, 3))] = data.draw(st.binary(max_size=6))
    with contextlib.suppress(StageError):
        checked_onnx(bytes(content), "memory://nowhere/f.onnx", None)

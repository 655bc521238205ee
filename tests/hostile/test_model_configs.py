"""Hostile model configs. A config that is data runs nothing; a config that is a program runs only if trusted."""

from __future__ import annotations

import contextlib
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples, examples_in_one_folder
from tests.helpers.model_configs import base, written
from vtcav_ray.config import ModelConfig
from vtcav_ray.config.loading import load_config, read_options
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.models import describe, load_recogniser
from vtcav_ray.models.config_files import packaged_names, read_config, read_labels
from vtcav_ray.models.config_types import check_registered
from vtcav_ray.text.bounded_text import UnreadableText, read_json, read_yaml
from vtcav_ray.tracks.detector_files import read_names


def refused(config: ModelConfig, *words: str) -> str:
    """Check that both readers of a config refuse it with a clear error."""
    with pytest.raises((ConfigError, StageError)) as caught:
        load_recogniser(config, "cpu")
    assert caught.value.exit_status in (2, 3)
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".json", ".yaml", ".YML"])
def test_a_config_that_is_data_gives_the_same_model(tmp_path: Path, suffix: str) -> None:
    ours = load_recogniser(written(tmp_path, base(), suffix), "cpu")
    theirs = load_recogniser(ModelConfig(checkpoint="untrained"), "cpu")
    assert ours.class_names == theirs.class_names
    assert {k: v.shape for k, v in ours.module.state_dict().items()} == {
        k: v.shape for k, v in theirs.module.state_dict().items()
    }


def test_yaml_makes_no_objects(tmp_path: Path, canary: Path) -> None:
    for tag in ("!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir", "!!python/name:os.mkdir", "!include"):
        refused(written(tmp_path, f"model: {tag} [{canary}]\n", ".yaml"), "tag")
    assert not canary.exists()


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_no_base_is_followed(tmp_path: Path, canary: Path, suffix: str) -> None:
    (tmp_path / "x.py").write_text(f"import os\nos.mkdir({str(canary)!r})\n")
    for target in ("x.py", "./x.py", ["x.py"], str(tmp_path / "x.py"), "mmaction::recognition/x.py"):
        refused(written(tmp_path, {**base(), "_base_": target}, suffix), "_base_")
    assert not canary.exists()


def test_nothing_is_replaced_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    for text in ("{{$ENV:SECRET}}", "{{ $SECRET:x }}", "{{ fileDirname }}", "${SECRET}"):
        data = base()
        data["classes"][0] = text
        assert read_config(written(tmp_path, data).config).class_names[0] == text  # type: ignore[index]
        data["model"]["backbone"]["type"] = text
        assert "hunter2" not in refused(written(tmp_path, data), "model.backbone.type")


DOTTED = ["subprocess.check_output", "os.mkdir", "builtins.eval", "torch.hub.load", "mmaction.models.SwinTransformer3D",
          "torchvision.resnet18", "timm.resnet18", "mmcls.ResNet", "mmengine.runner.load_checkpoint", "a b", "", 3,
          None, ["x"], {"x": 1}, "this\u2024that", "x" * 5000, "mmengine.", ".eval"]  # fmt: skip


@pytest.mark.parametrize("kind", DOTTED, ids=[str(i) for i in range(len(DOTTED))])
def test_a_type_is_no_path_wherever_it_stands(tmp_path: Path, kind: Any) -> None:
    places: list[Any] = []
    for place in ("model", "backbone", "cls_head", "data_preprocessor", "norm", "init", "list", "pipeline"):
        data = base()
        model = data["model"]
        bad = {"type": kind, "args": ["touch", "x"]}
        if place == "model":
            model["type"] = kind
        elif place == "norm":
            model["backbone"]["norm_cfg"] = bad
        elif place == "init":
            model["backbone"]["init_cfg"] = [bad]
        elif place == "list":
            model["cls_head"]["extra"] = [[{"deep": bad}]]
        elif place == "pipeline":
            data["test_pipeline"].append(bad)
        else:
            model[place] = {**(model.get(place) or {}), **bad}
        places.append(data)
    for data in places:
        refused(written(tmp_path, data), "type")


@pytest.mark.parametrize(
    "kind", ["antigravity", "LFB", "CLIPSimilarity", "VindLUVQA", "BaseTTAModel", "Pretrained", "PretrainedInit",
             "eval", "BMN", "ExponentialMovingAverage", "mmaction.LFB", "mmengine.Nothing"],
)  # fmt: skip
def test_a_type_is_a_registered_part_of_a_recogniser(tmp_path: Path, kind: str) -> None:
    data = base()
    data["model"]["backbone"]["type"] = kind
    before = set(sys.modules)
    refused(written(tmp_path, data), "model.backbone.type")
    assert kind not in set(sys.modules) - before


def test_a_bare_name_imports_no_module_of_that_name(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MMEngine's own look-up would import any module of that name."""
    (tmp_path / "zzevil").mkdir()
    (tmp_path / "zzevil" / "__init__.py").write_text(f"import os\nos.mkdir({str(canary)!r})\n")
    (tmp_path / "zzevil" / "registry.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    for change in ({"type": "zzevil"}, {"_scope_": "zzevil"}, {"type": "zzevil.SwinTransformer3D"}):
        data = base()
        data["model"]["backbone"].update(change)
        refused(written(tmp_path, data), "zzevil")
    data = {**base(), "custom_imports": {"imports": ["zzevil"]}, "default_scope": "zzevil"}
    load_recogniser(written(tmp_path, data), "cpu")  # these keys are not read
    assert not canary.exists()
    from mmengine.registry import MODELS

    with contextlib.suppress(Exception):  # any error of MMEngine's with this module
        MODELS.get("zzevil")
    assert canary.exists()


@pytest.mark.slow
def test_no_weights_are_taken_from_where_a_config_says(tmp_path: Path, canary: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.mkdir, (canary,)

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    weights = {"type": "Pretrained", "checkpoint": str(tmp_path / "evil.pth")}
    for init in (weights, [weights], {"type": "Constant", "val": 0, "layer": "Conv3d", "override": weights},
                 {"type": "Constant", "val": 0, "override": [{"name": "x", **weights}]}):  # fmt: skip
        data = base()
        data["model"]["backbone"]["init_cfg"] = init
        data["model"]["backbone"]["pretrained"] = str(tmp_path / "evil.pth")
        data["model"]["cls_head"]["init_cfg"] = init
        load_recogniser(written(tmp_path, data), "cpu")
    data = base()
    data["model"]["backbone"]["init_cfg"] = {"type": "mmengine.Pretrained", "checkpoint": str(tmp_path / "evil.pth")}
    load_recogniser(written(tmp_path, data), "cpu")
    assert not canary.exists()


@pytest.mark.parametrize(
    "step",
    [{}, {"type": "CenterCrop"}, {"type": "CenterCrop", "crop_size": 1 << 30}, {"type": "CenterCrop", "crop_size": -1},
     {"type": "CenterCrop", "crop_size": "x"}, {"type": "Resize", "scale": [1 << 40, 1 << 40]},
     {"type": "Resize", "scale": 1e9}, {"type": "Resize", "scale": []}, {"type": "Resize", "scale": None},
     {"type": "Resize", "scale": [64, 64], "interpolation": "x"}, {"type": "SampleFrames"},
     {"type": "SampleFrames", "clip_len": 1 << 62}, {"type": "SampleFrames", "clip_len": 0}],
    ids=str,
)  # fmt: skip
def test_steps_that_are_incomplete_or_beyond_reason_are_reported(tmp_path: Path, step: dict[str, Any]) -> None:
    crop = {"type": "CenterCrop", "crop_size": 64}
    pipeline = [step] if step.get("type") == "CenterCrop" else [step, crop]
    refused(written(tmp_path, {**base(), "test_pipeline": pipeline}))
    for section in ({"mean": ["x"] * 3}, {"std": [0, 1, 1]}, {"mean": [1e999] * 3}, {"mean": 3}, [1]):
        data = base()
        data["model"]["data_preprocessor"] = section
        refused(written(tmp_path, data))


def test_a_label_file_lies_beside_the_config(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("a\nb\nc\nd\n")
    folder = tmp_path / "m"
    folder.mkdir()
    data = base()
    del data["classes"]
    for name in (str(secret), "../secret.txt", "x/../../secret.txt", f"file://{secret}"):
        refused(written(folder, {**data, "label_file": name}), "label_file")


BOMBS = {
    "laughs": "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
    + "\n".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)),
    "merges": "a0: &a0 {k: 1}\n"
    + "\n".join(f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 12)),
    "deep": "a: " + "[" * 50_000 + "]" * 50_000,
    "deep by alias": "a0: &a0 [1]\n" + "\n".join(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 400)),
    "itself": "a: &a [*a]",
    "digits": "a: " + "1" * 100_000,
    "sexagesimal": "a: " + "1:" * 100_000 + "1",
    "long": "a: " + "x" * (2 << 20),
    "many": "a: [" + "1," * 150_000 + "]",
    "no date": "a: 2001-99-99",
    "no time": "a: 2001-01-01 99:99:99",
    "tag": "a: !!int x",
    "key": "? [1, 2]\n: 3",
    "value": "a: =",
    "nul": "a: \x00",
    "open": "a: [",
    "huge float": "a: 1.0e+999999\nb: 1_0:2:3.4:",
}


@pytest.mark.parametrize("name", BOMBS)
def test_text_that_keeps_a_reader_busy_is_refused_in_every_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(BOMBS[name])
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load_config(str(path))
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        read_config(str(path))
    if name != "huge float":  # this one is a mapping
        with pytest.raises(ConfigError, match=r"c\.yaml"):
            read_options(str(path))
    if "\n" not in BOMBS[name] and name not in ("nul", "long"):
        override = f"name={BOMBS[name].removeprefix('a: ')}"
        with pytest.raises(ConfigError, match="--set"):
            load_config(str(Path(__file__).parents[2] / "configs" / "quickstart.yaml"), [override])


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "1" * 5000, '{"a": ' * 70 + "1" + "}" * 70, "[" + "1," * 150_000 + "1]"]
)
def test_json_has_the_same_limits(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ConfigError, match=r"c\.json"):
        read_config(str(tmp_path / "c.json"))


@pytest.mark.slow
def test_label_files_without_an_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("x\n" * (9 << 20))
    for read in (read_labels, read_names):
        with pytest.raises(ConfigError, match=r"labels\.txt"):
            read(str(path))
    path.write_text("\n".join(str(i) for i in range(200_000)))
    assert len(read_labels(str(path))) == 200_000  # in linear, not quadratic time


@pytest.mark.slow
def test_packaged_configs_pass(tmp_path: Path) -> None:
    """The checks accept every type that MMAction2's own configs name, also if the configs are data."""
    from vtcav_ray.models.mmaction_import import import_mmaction

    import_mmaction()
    passed = 0
    for name in packaged_names()[::4]:
        if "kinetics710" in name or "mobileone" in name:  # a base config without a pipeline; needs MMPretrain
            continue
        check_registered(read_config(name).model, name, program=False)
        passed += 1
    assert passed > 20


@pytest.mark.slow
@examples(200)
@given(st.one_of(st.text(max_size=80), st.text(alphabet="{}[]&*a:,-|>!?%@`'\"\n #<=1.0_e~", max_size=80)))
def test_any_text_is_data_or_refused(text: str) -> None:
    for read in (read_yaml, read_json):
        with contextlib.suppress(UnreadableText):
            read(text)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(), st.text(max_size=8),
              st.sampled_from(["Conv3d", "os.system", "Recognizer3D", "SampleFrames", "CenterCrop"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["type", "_scope_", "backbone", "cls_head", "init_cfg"]), inner, max_size=3),
    ),
    max_leaves=8,
)  # fmt: skip


@pytest.mark.slow
@examples_in_one_folder(200)
@given(model=JSON, pipeline=JSON, more=JSON)
def test_any_data_in_the_place_of_a_config_is_a_clear_error(
    tmp_path: Path, model: Any, pipeline: Any, more: Any
) -> None:
    data = {"model": model, "test_pipeline": pipeline, "dataset_meta": more, "classes": more, "test_dataloader": more}
    if isinstance(model, dict):
        data["model"] = {**base()["model"], **model}
    with contextlib.suppress(ConfigError, StageError):
        describe(written(tmp_path, data))

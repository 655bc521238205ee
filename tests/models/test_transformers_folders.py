"""Folders of Hugging Face's video classifiers: what is refused, and why."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.hugging_face import model, need_transformers, recogniser_at
from vtcav_ray.config import ModelConfig
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.models import describe, load_recogniser


@pytest.fixture(scope="module", autouse=True)
def _transformers() -> None:
    need_transformers()


def refused(folder: Any, match: str, error: type[Exception] = ConfigError, **more: Any) -> None:
    for use in (describe, lambda c: load_recogniser(c, "cpu")):
        if error is StageError and use is describe:
            continue  # needs the network
        with pytest.raises(error, match=match):
            use(ModelConfig(framework="transformers", checkpoint=str(folder), **more))


@pytest.mark.slow
def test_pickles_are_refused_and_the_message_says_how_to_convert_them(tmp_path: Path, folders: dict[str, str]) -> None:
    folder = Path(shutil.copytree(folders["videomae"], tmp_path / "m"))
    (folder / "model.safetensors").unlink()
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (canary,))

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    refused(folder, r"pytorch_model\.bin.*not read.*save_pretrained\(NEW_FOLDER\)")
    (folder / "pytorch_model.bin").unlink()
    refused(folder, r"no model\.safetensors")
    assert not canary.exists()


@pytest.mark.slow
def test_code_in_the_folder_never_runs(tmp_path: Path, folders: dict[str, str]) -> None:
    folder = Path(shutil.copytree(folders["videomae"], tmp_path / "m"))
    canary = tmp_path / "canary"
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w')\nclass Evil: pass\n")
    data = json.loads((folder / "config.json").read_text())
    code = {"auto_map": {"AutoConfig": "evil.Evil", "AutoModelForVideoClassification": "evil.Evil"},
            "attn_implementation": "someone/kernel", "_attn_implementation": "someone/kernel"}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(data | code))
    recogniser = recogniser_at(str(folder))
    assert type(recogniser.module).__module__ == "transformers.models.videomae.modeling_videomae"
    assert recogniser.module.config._attn_implementation == "sdpa"
    assert not canary.exists()


@pytest.mark.slow
def test_weights_that_do_not_fit_stop_with_the_list(tmp_path: Path, folders: dict[str, str]) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import VideoMAEForPreTraining

    file = "model.safetensors"
    whole = load_file(Path(folders["videomae"]) / file)
    name = "videomae.encoder.layer.0.output.dense.weight"
    for number, (change, match) in enumerate([
        ({name: None}, f"missing: {name}"),
        ({"other.weight": torch.zeros(2)}, r"not in the model: other\.weight"),
        ({"classifier.bias": torch.zeros(7)}, r"of another shape: classifier\.bias"),
    ]):  # fmt: skip
        folder = Path(shutil.copytree(folders["videomae"], tmp_path / str(number)))
        weights = {key: value for key, value in (whole | change).items() if value is not None}
        save_file(weights, folder / file, metadata={"format": "pt"})
        refused(folder, match, StageError)
    folder = Path(shutil.copytree(folders["videomae"], tmp_path / "pretrained"))
    config = model("videomae").config
    VideoMAEForPreTraining(config).save_pretrained(str(folder))
    refused(folder, r"missing: classifier.*not in the model.*only pretrained", StageError)
    (folder / file).write_bytes(b"no safetensors at all")
    refused(folder, "can't load", StageError)


@pytest.mark.slow
def test_folders_that_can_not_be_used_say_why(tmp_path: Path, folders: dict[str, str]) -> None:
    refused("MCG-NJU/videomae-base", "hf download MCG-NJU/videomae-base --local-dir videomae-base")
    refused(tmp_path / "absent" / "folder", r"no config\.json")
    refused(Path(folders["videomae"]) / "model.safetensors", "is a file. Name the folder")
    for change, match in [
        ({"model_type": "bert"}, "no video classifier.*videomae"),
        ({"id2label": {"0": "a", "1": "a", "2": "b", "3": "c"}}, "names twice: a"),
        ({"id2label": {"0": "a", "5": "b"}}, "places 0 to n - 1"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
    ]:
        folder = tmp_path / "changed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(folders["videomae"], folder)
        data = json.loads((folder / "config.json").read_text()) | change
        (folder / "config.json").write_text(json.dumps(data))
        with pytest.raises(ConfigError, match=match):
            recogniser_at(str(folder))
    (folder / "config.json").write_text("{")
    refused(folder, "can't be read as JSON")


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": "abc"}, {"hidden_size": 17}, {"hidden_act": "nope"}, {"patch_size": 0}, {"num_frames": "7"},
        {"image_size": [64, "x"]}, {"image_size": None}, {"tubelet_size": None}, {"num_hidden_layers": -1},
        {"num_labels": "z", "id2label": None}, {"model_type": ["a"]}, {"image_size": 10**12},
    ],
)  # fmt: skip
def test_a_damaged_config_is_an_error_of_ours(tmp_path: Path, folders: dict[str, str], change: dict[str, Any]) -> None:
    folder = Path(shutil.copytree(folders["videomae"], tmp_path / "m"))
    (folder / "video_preprocessor_config.json").unlink()
    data = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(data))
    with pytest.raises((ConfigError, StageError), match=str(folder)):
        recogniser_at(str(folder))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"resample": 1}, "resample: 1"),
        ({"size": {"longest_edge": 50}}, "longest_edge"),
        ({"crop_size": {"height": 99, "width": 99}}, "99x99 is larger"),
        ({"do_center_crop": False}, "any size"),
        ({"image_std": [0.5, 0.0, 0.5]}, "above 0"),
        ({"size": {"shortest_edge": 10**9}}, "1000000000"),
        ({"do_pad": True}, "do_pad"),
        ({"image_mean": "none"}, "could not convert"),
    ],
)
def test_processors_that_are_not_supported_are_refused_by_the_key(
    tmp_path: Path, folders: dict[str, str], change: dict[str, Any], match: str
) -> None:
    folder = Path(shutil.copytree(folders["videomae"], tmp_path / "m"))
    file = folder / "video_preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    refused(folder, match)


def test_a_processor_of_another_size_is_refused(tmp_path: Path, folders: dict[str, str]) -> None:
    folder = Path(shutil.copytree(folders["videomae"], tmp_path / "m"))
    file = folder / "video_preprocessor_config.json"
    size = {"crop_size": {"height": 24, "width": 24}}
    file.write_text(json.dumps(json.loads(file.read_text()) | size))
    with pytest.raises(ConfigError, match="gives frames of 24x24 pixels, and the network takes 32x32"):
        recogniser_at(str(folder))


def test_labels_of_the_config_rename_the_classes(tmp_path: Path, folders: dict[str, str]) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\nd\n")
    config = ModelConfig(framework="transformers", checkpoint=folders["vivit"], labels=str(labels))
    assert load_recogniser(config, "cpu").class_names == ("a", "b", "c", "d") == describe(config).class_names
    labels.write_text("a\nb\n")
    refused(folders["vivit"], "names 2 classes, and the model has 4", labels=str(labels))


@pytest.mark.slow
def test_nothing_is_asked_of_the_hub(folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for folder in folders.values():
        recogniser_at(folder)
    refused("MCG-NJU/videomae-base", "nothing is downloaded here")
    code = (
        "import vtcav_ray.models.transformers_models as m; m.import_transformers(); import huggingface_hub; "
        "print(huggingface_hub.constants.HF_HUB_OFFLINE)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"

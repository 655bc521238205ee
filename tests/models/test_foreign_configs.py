"""Model configs and checkpoints as other people have them: bases of packages, own classes, other versions, any key."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.model_configs import asset_text, base, written
from vtcav_ray.config import ModelConfig
from vtcav_ray.config.loading import load_config
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.gradcam.maps import GradCam
from vtcav_ray.models import Recogniser, describe, load_recogniser
from vtcav_ray.models.checkpoints import CONTAINERS, read_checkpoint
from vtcav_ray.models.config_files import packaged_names, read_config
from vtcav_ray.text.bounded_text import UnreadableText, read_yaml

SWIN = "recognition/swin/swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb"
OWN_CLASS = """
from mmaction.registry import MODELS
from mmaction.models.heads import I3DHead

@MODELS.register_module(force=True)
class {name}(I3DHead):
    pass
"""


def written_program(folder: Path, text: str) -> ModelConfig:
    (folder / "model.py").write_text(text)
    return ModelConfig(config=str(folder / "model.py"), checkpoint="untrained")


@pytest.fixture
def own_module(tmp_path: Path) -> Iterator[str]:
    """Write a module that registers a head, beside the config; the name is new in this process."""
    name = f"zz_{re.sub(r'[^a-z0-9]', '_', tmp_path.name.lower())}"
    (tmp_path / f"{name}.py").write_text(OWN_CLASS.format(name=name.title()))
    yield name
    sys.modules.pop(name, None)


@pytest.mark.slow
def test_a_base_of_an_installed_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pkg_resources", None)  # setuptools has removed it
    config = written_program(
        tmp_path, f"_base_ = ['mmaction::{SWIN}.py']\nmodel = dict(cls_head=dict(num_classes=7))\n"
    )
    parsed, whole = read_config(config.config), read_config(SWIN)
    assert parsed.num_classes == 7
    assert parsed.model["backbone"] == whole.model["backbone"]
    assert parsed.pipeline == whole.pipeline
    assert load_recogniser(config, "cpu").class_names == tuple("0123456")


def test_a_base_of_a_package_that_is_not_installed_is_named(tmp_path: Path) -> None:
    config = written_program(tmp_path, "_base_ = ['mmrazor::a/b.py']\n")
    with pytest.raises(ConfigError, match=r"model\.config.*ModuleNotFoundError.*mmrazor is not installed"):
        read_config(config.config)


def test_custom_imports_of_a_config_on_this_machine_run_and_the_log_says_so(
    tmp_path: Path, own_module: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"{asset_text()}\ncustom_imports = dict(imports=['{own_module}'], allow_failed_imports=False)\n"
    text += f"model['cls_head']['type'] = '{own_module.title()}'\n"
    with caplog.at_level(logging.INFO, logger="vtcav_ray"):
        recogniser = load_recogniser(written_program(tmp_path, text), "cpu")
    assert type(recogniser.module.cls_head).__name__ == own_module.title()
    assert f"imports {own_module} (custom_imports)" in caplog.text
    assert str(tmp_path) not in sys.path


def test_custom_imports_that_fail_say_what_to_do(tmp_path: Path, own_module: str) -> None:
    text = f"{asset_text()}\ncustom_imports = dict(imports=['zz_nowhere'])\n"
    with pytest.raises(ConfigError, match=r"`custom_imports` names zz_nowhere.*ModuleNotFoundError.*PYTHONPATH"):
        load_recogniser(written_program(tmp_path, text), "cpu")
    (tmp_path / f"{own_module}.py").write_text("raise RuntimeError('broken')\n")
    text = f"{asset_text()}\ncustom_imports = dict(imports=['{own_module}'])\n"
    with pytest.raises(ConfigError, match=rf"names {own_module}.*RuntimeError: broken"):
        load_recogniser(written_program(tmp_path, text), "cpu")
    text = f"{asset_text()}\ncustom_imports = dict(imports=['zz_nowhere'], allow_failed_imports=True)\n"
    assert load_recogniser(written_program(tmp_path, text), "cpu").class_names


def test_custom_imports_of_data_and_of_an_untrusted_program_do_not_run(tmp_path: Path, own_module: str) -> None:
    (tmp_path / f"{own_module}.py").write_text("raise SystemExit\n")
    load_recogniser(written(tmp_path, {**base(), "custom_imports": {"imports": [own_module]}}), "cpu")
    text = f"{asset_text()}\ncustom_imports = dict(imports=['{own_module}'])\n"
    config = written_program(tmp_path, text)
    describe(config)  # reading a config imports nothing more
    with pytest.raises(ConfigError, match="--trust-code"):
        load_recogniser(config.trusting("nowhere"), "cpu")
    assert own_module not in sys.modules


def test_a_new_style_config_gives_what_the_old_style_gives(tmp_path: Path) -> None:
    old = written_program(
        tmp_path,
        "model = dict(type='Recognizer3D', backbone=dict(type='C3D'), cls_head=dict(type='I3DHead', num_classes=3, "
        "in_channels=4096), data_preprocessor=dict(type='ActionDataPreprocessor', mean=[1, 1, 1], std=[1, 1, 1]))\n"
        "test_pipeline = [dict(type='SampleFrames', clip_len=16, frame_interval=1, num_clips=1)]\n",
    )
    wanted = read_config(old.config)
    text = (tmp_path / "model.py").read_text()
    text = re.sub(r"type='(\w+)'", r"type=\1", text)
    head = "from mmengine.config import read_base\nfrom mmaction.models.recognizers import Recognizer3D\n"
    head += "from mmaction.models.backbones import C3D\nfrom mmaction.models.heads import I3DHead\n"
    head += "from mmaction.models import ActionDataPreprocessor\nfrom mmaction.datasets import SampleFrames\n"
    assert read_config(written_program(tmp_path, head + text).config) == wanted


@pytest.mark.parametrize("suffix", [".py", ".json"])
def test_a_config_of_mmaction_0_is_named_as_such(tmp_path: Path, suffix: str) -> None:
    data: dict[str, Any] = {
        "model": {"type": "Recognizer3D", "backbone": {"type": "C3D"}, "cls_head": {"type": "I3DHead"}},
        "test_pipeline": [{"type": "SampleFrames", "clip_len": 8}, {"type": "Collect", "keys": ["imgs"]}],
        "data": {"videos_per_gpu": 8, "test": {"type": "VideoDataset"}},
    }
    for left_out in ("test_pipeline", "data"):
        old = {key: value for key, value in data.items() if key != left_out}
        if suffix == ".py":
            config = written_program(tmp_path, "\n".join(f"{key} = {value!r}" for key, value in old.items()))
        else:
            config = written(tmp_path, old)
        with pytest.raises(ConfigError, match=r"written for MMAction2 0\.x"):
            read_config(config.config)


@pytest.mark.slow
def test_no_packaged_config_is_taken_for_an_old_one() -> None:
    assert all(read_config(name).model for name in packaged_names()[::9])


WEIGHTS = {"a.weight": torch.ones(2), "b.bias": torch.zeros(3)}


@pytest.mark.parametrize("key", [*CONTAINERS, "my_own_key"])
@pytest.mark.parametrize("outer", [None, "model", "state_dict"])
def test_weights_are_found_below_any_key(tmp_path: Path, key: str, outer: str | None) -> None:
    content: dict[str, Any] = {key: WEIGHTS}
    if outer is not None and key != "my_own_key":
        content = {outer: content}
    torch.save({**content, "epoch": 3, "args": {"lr": 0.1}}, tmp_path / "c.pth")
    assert read_checkpoint(str(tmp_path / "c.pth")).weights.keys() == WEIGHTS.keys()


def test_weights_below_several_keys_are_listed(tmp_path: Path) -> None:
    torch.save({"generator": WEIGHTS, "critic": WEIGHTS}, tmp_path / "c.pth")
    with pytest.raises(StageError, match=r"several keys: critic, generator\. Save those of the model"):
        read_checkpoint(str(tmp_path / "c.pth"))


def test_a_pickled_model_says_how_to_save_its_weights(tmp_path: Path) -> None:
    torch.save({"net": torch.nn.Linear(2, 2)}, tmp_path / "c.pth")
    with pytest.raises(StageError, match=r"refused.*torch\.save\(model\.state_dict\(\), FILE\)"):
        read_checkpoint(str(tmp_path / "c.pth"))


def test_a_layer_of_gradcam_is_reported_by_its_own_key(swin: Recogniser) -> None:
    with pytest.raises(ConfigError, match=r"^gradcam\.layers: the model has no layer `midle`.*Nearest: middle"):
        GradCam(swin, ("midle",), batch_size=1)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [("a: 1\nb: [1, 2\nc: 3\n", 3, 2), ("a: b: c\n", 1, 5), ("a: 1\n  b: 2\n", 2, 4), ("a: !!python/x 1\n", 1, 4),
     ("a:\n\t- b\n", 2, 1)],
)  # fmt: skip
def test_yaml_errors_have_file_line_and_column(tmp_path: Path, text: str, line: int, column: int) -> None:
    with pytest.raises(UnreadableText, match=rf"^line {line}, column {column}: "):
        read_yaml(text)
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"c\.yaml.*line {line}, column {column}: "):
        load_config(str(path))

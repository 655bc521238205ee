from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from vtcav_ray.config import ModelConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.models import describe, load_recogniser, model_digest
from vtcav_ray.models.config_files import packaged_names, read_config, read_labels
from vtcav_ray.store.assets import resolve_asset

SWIN_T = "swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb"


def test_assets() -> None:
    assert Path(resolve_asset("asset:recogniser.py")).is_file()
    assert resolve_asset("s3://bucket/asset.py") == "s3://bucket/asset.py"
    with pytest.raises(ConfigError, match=r"asset:nothing\.pth.*recogniser\.py"):
        resolve_asset("asset:nothing.pth")
    with pytest.raises(ConfigError):
        resolve_asset("asset:../__init__.py")


@pytest.mark.parametrize(
    "name", [SWIN_T, f"{SWIN_T}.py", f"recognition/swin/{SWIN_T}", f"recognition/swin/{SWIN_T}.py"]
)
def test_packaged_configs_are_found_by_name_with_their_bases(name: str) -> None:
    config = read_config(name)
    assert config.model["backbone"]["arch"] == "tiny"
    assert config.num_classes == 400
    assert config.class_names is None
    assert [step["type"] for step in config.pipeline][3:5] == ["Resize", "ThreeCrop"]


@pytest.mark.slow
def test_no_packaged_config_names_weights_to_fetch() -> None:
    """This covers all keys that name a download: `pretrained`, `init_cfg`, CLIP weights."""
    names = [n for n in packaged_names() if n.split("/")[1] in ("swin", "mvit", "uniformerv2", "slowonly", "csn")]
    assert len(names) > 20
    checked = 0
    for name in names[::3]:
        if "clip-pre_u8_kinetics710" in name:
            continue  # without a test pipeline: a base of other configs
        text = repr(read_config(name).model)
        assert "http" not in text, name
        assert "'Pretrained'" not in text, name
        assert "'pretrained2d': True" not in text, name
        assert "'clip_pretrained': True" not in text, name
        checked += 1
    assert checked > 8


def test_unknown_config_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="swin-tiny-p244"):
        read_config("swin-tiny-p244_kinetics400")
    with pytest.raises(ConfigError, match="zzz"):
        read_config("zzz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = dict(type='X')", "backbone"),
        ("model = (", "can't be read"),
        ("model = dict(backbone=dict(type='A'), cls_head=dict(type='B'))", "test_pipeline"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "model.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(str(path))


def test_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("lift\nput down\n\n")
    assert read_labels(str(path)) == ("lift", "put down")
    path.write_text("0 lift\n1 put down\n")
    assert read_labels(str(path)) == ("lift", "put down")
    path.write_text("lift\nlift\n")
    with pytest.raises(ConfigError, match=r"twice: lift"):
        read_labels(str(path))
    with pytest.raises(ConfigError, match="No label file"):
        read_labels(str(tmp_path / "absent.txt"))


def copy_to(folder: str) -> str:
    """Copy the packaged small config and its label file to another folder."""
    for name in ("recogniser.py", "recogniser_labels.txt"):
        with fsspec.open(f"{folder}/{name}", "wb") as file:
            file.write(Path(resolve_asset(f"asset:{name}")).read_bytes())
    return f"{folder}/recogniser.py"


def test_digest_is_of_content_and_not_of_place(tmp_path: Path) -> None:
    here = ModelConfig(checkpoint="untrained")
    remote = ModelConfig(checkpoint="untrained", config=copy_to("memory://configs")).trusting("anywhere")
    assert model_digest(here) == model_digest(remote)
    assert describe(remote).class_names == ("lift", "put_down", "push_left", "push_right")
    assert describe(here).tag == f"UNTRAINED@{model_digest(here)[:12]}"

    assert model_digest(here, seed=1) != model_digest(here)
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\nd\n")
    assert model_digest(ModelConfig(checkpoint="untrained", labels=str(labels))) != model_digest(here)
    one, other = tmp_path / "one.pth", tmp_path / "other.pth"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    digests = {model_digest(ModelConfig(checkpoint=str(path))) for path in (one, other)}
    assert len(digests | {model_digest(here)}) == 3
    moved = tmp_path / "moved.pth"
    moved.write_bytes(b"1")
    assert model_digest(ModelConfig(checkpoint=str(moved))) in digests
    described = describe(ModelConfig(checkpoint=str(moved)))
    assert described.tag.startswith("moved.pth@")
    assert not described.untrained


def test_a_change_of_the_training_part_changes_no_digest(tmp_path: Path) -> None:
    path = Path(copy_to(str(tmp_path)))
    before = model_digest(ModelConfig(checkpoint="untrained", config=str(path)))
    path.write_text(path.read_text() + "\nlr = 1e-4\n")
    assert model_digest(ModelConfig(checkpoint="untrained", config=str(path))) == before
    path.write_text(path.read_text().replace("window_size=(8, 4, 4)", "window_size=(4, 4, 4)"))
    assert model_digest(ModelConfig(checkpoint="untrained", config=str(path))) != before


def test_the_digest_builds_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object, **__: object) -> None:
        raise AssertionError("built")

    monkeypatch.setattr("vtcav_ray.models.mmaction.build_mmaction", build)
    config = ModelConfig(checkpoint="untrained")
    assert len(model_digest(config)) == 64
    with pytest.raises(AssertionError, match="built"):
        load_recogniser(config, "cpu")


def test_missing_checkpoint_and_unknown_framework() -> None:
    with pytest.raises(ConfigError, match="No checkpoint"):
        describe(ModelConfig(checkpoint="memory://nowhere/weights.pth"))
    with pytest.raises(ConfigError, match=r"Did you mean `mmaction2`"):
        load_recogniser(ModelConfig(framework="mmaction", checkpoint="untrained"))
    with pytest.raises(ConfigError, match="`nosuchprotocol` URLs are not opened"):
        describe(ModelConfig(checkpoint="nosuchprotocol://weights.pth"))


def test_labels_must_fit_the_model(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\n")
    with pytest.raises(ConfigError, match="names 2 classes, and the model has 4"):
        load_recogniser(ModelConfig(checkpoint="untrained", labels=str(labels)), "cpu")

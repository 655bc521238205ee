"""Every recogniser config in MMAction2's wheel can be read and preprocessed, and `test_families` runs its kind."""

from __future__ import annotations

import functools

import pytest
import torch

from tests.helpers.families import TRIALS
from vtcav_ray.errors import ConfigError
from vtcav_ray.models import Recogniser
from vtcav_ray.models.config_files import read_config
from vtcav_ray.models.families import family_of
from vtcav_ray.models.mmaction import build_mmaction
from vtcav_ray.models.mmaction_import import packaged_configs
from vtcav_ray.models.preprocess import make_preprocessor

# Backbones that no test runs, with the reason. docs/models.md also lists them.
NOT_RUN = {
    "ResNetTIN": "needs an operator of the full mmcv, compiled for CUDA",
    "MobileOneTSM": "needs mmpretrain",
    "OmniResNet": "one network for images and videos; its head is not made for clips alone",
}
REFUSED = {"flow": "channels", "clip-pre_u8_kinetics710-rgb": "test_pipeline"}  # part of the name -> part of the error


def names() -> list[str]:
    root = packaged_configs()
    return [str(path.relative_to(root)) for path in sorted(root.glob("recognition/*/*.py"))]


@pytest.mark.full
def test_every_packaged_config_is_one_that_is_run_or_is_refused_in_a_sentence() -> None:
    run = {read_config(trial.config).model["backbone"]["type"] for trial in TRIALS.values()}
    seen, refused = set[str](), dict[str, str]()
    for name in names():
        try:
            parsed = read_config(name)
            ours = make_preprocessor(parsed.pipeline, parsed.model.get("data_preprocessor") or {})
        except ConfigError as error:
            refused[name] = str(error)
            continue
        assert ours.sampling is not None, name
        assert min(ours.input_size) >= 112, name
        seen.add(parsed.model["backbone"]["type"])
    assert seen - run == set(NOT_RUN)
    assert seen >= run
    for name, message in refused.items():
        assert any(part in name and words in message for part, words in REFUSED.items()), (name, message)
    assert len(refused) == 5, refused
    assert len(names()) > 100


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in names() if "/swin/" in name])
def test_every_packaged_video_swin_builds_with_its_aliases(
    swin: Recogniser, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "linspace", functools.partial(torch.linspace, device="cpu"))  # its values are read
    with torch.device("meta"):  # shapes without values: Swin-L takes less than a second
        module = build_mmaction(read_config(name), name, seed=None)
    family = family_of(module)
    assert family.aliases["late"] == "backbone.layers.3"
    assert set(family.aliases) == {"early", "middle", "late", "head"}
    classes = next(n for n in (400, 600, 700, 710) if f"kinetics{n}" in name)
    assert module.get_submodule("cls_head.fc_cls").weight.shape[0] == classes

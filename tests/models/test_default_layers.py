"""The layers of a run whose config names none: by the family of its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vtcav_ray import pipeline
from vtcav_ray.config import Config, ModelConfig
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError
from vtcav_ray.models import Recogniser, load_recogniser, resolve_layer, with_layers
from vtcav_ray.models.config_files import packaged_names, read_config
from vtcav_ray.models.families import Family, convolutional, default_layers, family_of
from vtcav_ray.registry import FAMILIES, FRAMEWORKS

PLAIN = ("early", "middle", "late", "head")
WITH_PLACES = (
    "early", "early@moving", "early@still",
    "middle", "middle@moving", "middle@still",
    "late", "late@moving", "late@still",
    "head",
)  # fmt: skip
TINY_RESNET = Path(__file__).parents[2] / "benchmarks" / "worlds" / "resnet3d_tiny.py"


def config_of(model: str, **activations: Any) -> Config:
    """Return a config of an untrained model."""
    sections = {"videos": {"uri": "x"}, "model": {"config": model, "checkpoint": "untrained"}}
    return parse_config({**sections, "activations": activations})


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        ("slowonly_r50_8xb16-8x8x1-256e_imagenet-kinetics400-rgb", WITH_PLACES),
        ("slowfast_r50_8xb8-8x8x1-256e_kinetics400-rgb", WITH_PLACES),
        ("tsn_imagenet-pretrained-r50_8xb32-1x1x8-100e_kinetics400-rgb", WITH_PLACES),
        ("x3d_m_16x5x1_facebook-kinetics400-rgb", WITH_PLACES),
        ("swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb", PLAIN),
        ("timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb", PLAIN),
        # Its first two stages are convolutional, the others have attention.
        ("uniformer-small_imagenet1k-pre_16x4x1_kinetics400-rgb",
         ("early", "early@moving", "early@still", "middle", "late", "head")),
        ("asset:recogniser.py", PLAIN),
    ],
)  # fmt: skip
def test_the_default_of_a_family(model: str, layers: tuple[str, ...]) -> None:
    assert with_layers(config_of(model)).activations.layers == layers


@pytest.mark.full
def test_every_packaged_convolutional_network_has_places() -> None:
    """A ResNet that comes with MMAction2 under another class name must not fall back to the mean unseen."""
    plain: dict[str, list[str]] = {}
    for name in packaged_names():
        backbone = backbone_of(name)
        if backbone is not None and default_layers(backbone) == PLAIN:
            plain.setdefault(backbone, []).append(name)
    attention = {"SwinTransformer3D", "TimeSformer", "VisionTransformer", "UniFormerV2", "MViT"}
    # MobileOneTSM has no `layer4`, and needs mmpretrain.
    assert set(plain) - attention <= {"MobileOneTSM", "mmpretrain.MobileOne"}


def backbone_of(name: str) -> str | None:
    """Return the backbone's class; None: the config can't be read (optical flow, no test pipeline)."""
    try:
        return str(read_config(name).model["backbone"]["type"])
    except ConfigError:
        return None


def test_an_unknown_backbone_has_the_mean_alone() -> None:
    assert default_layers("Mine") == PLAIN
    assert default_layers("mmaction.ResNet3d") == WITH_PLACES  # with MMEngine's scope before the name


def test_a_familys_own_default(monkeypatch: pytest.MonkeyPatch) -> None:
    @convolutional("middle")
    def mine(backbone: nn.Module, head: nn.Module) -> Family:
        return Family()

    monkeypatch.setitem(FAMILIES._entries, "Mine", mine)
    assert default_layers("Mine") == ("early", "middle", "middle@moving", "middle@still", "late", "head")


def test_named_layers_and_an_own_projection_win() -> None:
    config = config_of(str(TINY_RESNET), layers=["late", "early@still"])
    assert with_layers(config) is config
    assert with_layers(config_of(str(TINY_RESNET), projection="space")).activations.layers == PLAIN


def test_a_framework_without_families_has_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(config: ModelConfig, device: torch.device, seed: int) -> Recogniser:
        raise AssertionError("the layers must be known before the model is built")

    monkeypatch.setitem(FRAMEWORKS._entries, "own", make)
    config = parse_config({"videos": {"uri": "x"}, "model": {"framework": "own", "config": "c"}})
    assert with_layers(config).activations.layers == PLAIN


def test_the_default_layers_of_a_resnet_with_three_stages_are_there() -> None:
    config = with_layers(config_of(str(TINY_RESNET)))
    assert config.activations.layers == WITH_PLACES
    recogniser = load_recogniser(config.model, "cpu")
    paths = [resolve_layer(recogniser, layer.partition("@")[0]) for layer in config.activations.layers]
    assert list(dict.fromkeys(paths)) == [
        "backbone.layer1", "backbone.layer2", "backbone.layer3.0", "cls_head.avg_pool",
    ]  # fmt: skip


def test_a_resnet_of_two_stages_has_only_its_head() -> None:
    backbone = nn.ModuleDict({"layer1": nn.Sequential(nn.Identity()), "layer2": nn.Sequential(nn.Identity())})
    head = nn.Sequential(nn.Linear(2, 2))
    assert set(family_of(nn.ModuleDict({"backbone": backbone, "cls_head": head})).aliases) == {"head"}


def test_only_stages_with_a_model_read_its_config() -> None:
    """Without a readable model, the clips can still be made."""
    config = config_of("no such model")
    assert pipeline.layers_filled_in(config, pipeline.stages_until("clips", config)) is config
    with pytest.raises(ConfigError, match="no such model"):
        pipeline.layers_filled_in(config, pipeline.stages_until(None, config))

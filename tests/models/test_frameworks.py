"""Frameworks other than MMAction2: torchvision if it works, and a user's own by entry point."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vtcav_ray import registry
from vtcav_ray.activations import Extractor
from vtcav_ray.config import ModelConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.models import Recogniser, describe, load_recogniser, model_digest
from vtcav_ray.models.preprocess import make_preprocessor

STEPS = [{"type": "Resize", "scale": (-1, 24)}, {"type": "CenterCrop", "crop_size": 24}]


class Own(Recogniser):
    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x)


def make_own(config: ModelConfig, device: torch.device, seed: int) -> Recogniser:
    """A user's code: any network, and how frames become its input."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv3d(3, 6, 3, stride=2),
        nn.ReLU(),
        nn.Conv3d(6, 8, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    return Own(
        module=network,
        class_names=("a", "b", "c"),
        description=describe(config, seed=seed),
        preprocessor=make_preprocessor(STEPS, {"mean": [128.0] * 3, "std": [64.0] * 3}),
        layer_aliases={"early": "1", "late": "3", "head": "4"},
        device=device,
    )


@pytest.fixture
def _entry_point(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    entry = importlib.metadata.EntryPoint("own", f"{__name__}:make_own", "vtcav_ray.recognisers")
    installed = importlib.metadata.EntryPoints([entry])
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: installed.select(group=group))
    registry.installed.cache_clear()
    monkeypatch.setattr(registry.FRAMEWORKS, "_entries", dict(registry.FRAMEWORKS._entries))
    yield
    registry.installed.cache_clear()


@pytest.mark.usefixtures("_entry_point")
def test_a_users_own_network_by_entry_point() -> None:
    config = ModelConfig(framework="own", config="anything", checkpoint="untrained")
    recogniser = load_recogniser(config, "cpu")
    assert recogniser.digest == model_digest(config)
    assert recogniser.digest != model_digest(ModelConfig(framework="own", config="other", checkpoint="untrained"))
    clips = [np.random.RandomState(i).randint(0, 256, (8, 30, 40, 3), np.uint8) for i in range(2)]
    found = Extractor(recogniser, ["early", "late", "head"], "time").extract(clips, [[0], [1, 2]])
    assert found.activations["early"].shape == (2, 3 * 6)
    assert found.gradients["head"].shape == (3, 8)
    with pytest.raises(ConfigError, match=r"own.*Did you mean `own`"):
        load_recogniser(ModelConfig(framework="owm", checkpoint="untrained"), "cpu")


def test_torchvision_that_does_not_match_torch_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(framework="torchvision", config="swin3d_t", checkpoint="untrained")
    assert describe(config).untrained
    monkeypatch.setitem(sys.modules, "torchvision", None)  # as if it was not installed
    with pytest.raises(ConfigError, match=r"torchvision can't be used here.*mmaction2"):
        load_recogniser(config, "cpu")
    with pytest.raises(ConfigError, match="swin3d_b"):
        describe(ModelConfig(framework="torchvision", config="swin3d_x", checkpoint="untrained"))


@pytest.mark.slow
def test_torchvision_swin(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError), reason="torchvision does not match torch")
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\n")
    config = ModelConfig(framework="torchvision", config="swin3d_t", checkpoint="untrained", labels=str(labels))
    recogniser = load_recogniser(config, "cpu")
    clip = np.random.RandomState(0).randint(0, 256, (4, 224, 224, 3), np.uint8)
    extractor = Extractor(recogniser, ["early", "middle", "late", "head"])
    found = extractor.extract([clip], [[1]])
    assert extractor.shapes()["early"] == (2, 28, 28, 192)
    assert all(np.abs(g).max() > 0 for g in found.gradients.values())

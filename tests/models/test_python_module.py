"""A network from a function of the user's own module."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.hugging_face import need_transformers
from vtcav_ray.activations import Extractor
from vtcav_ray.config import ModelConfig
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.models import describe, load_recogniser
from vtcav_ray.models.layer_table import layer_table

PLAIN = """
from torch import nn
from vtcav_ray.models import NetworkSpec

def build():
    network = nn.Sequential(
        nn.Conv3d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv3d(6, 8, 3), nn.ReLU(), nn.Conv3d(8, 8, 1), nn.ReLU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 3),
    )
    aliases = {"early": "1", "middle": "3", "late": "4", "head": "7"}
    return network, NetworkSpec(("a", "b", "c"), 24, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), layer_aliases=aliases)
"""
FRAME_BY_FRAME = """
import timm
from torch import nn
from vtcav_ray.models import NetworkSpec, TokenGrid

class PerFrame(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):  # [B, 3, T, H, W]
        logits = self.network(x.transpose(1, 2).flatten(0, 1))
        return logits.view(len(x), x.shape[2], -1).mean(1)

def resnet():
    network = timm.create_model("resnet10t", num_classes=3)
    aliases = {"early": "network.layer2", "late": "network.layer4", "head": "network.global_pool"}
    return PerFrame(network), NetworkSpec(("a", "b", "c"), 64, layer_aliases=aliases)

def vit():
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, num_classes=3)
    aliases = {"early": "network.blocks.0", "late": "network.blocks.1", "head": "network.head:in"}
    tokens = TokenGrid("thw", patch=16)
    return PerFrame(network), NetworkSpec(("a", "b", "c"), 32, frames=4, layer_aliases=aliases, tokens=tokens)
"""
Place = Callable[[str, str], ModelConfig]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Write a module into the working directory, and return a config that names a function in it."""
    monkeypatch.chdir(tmp_path)
    written: list[str] = []

    def write(text: str, function: str = "build", **more: str) -> ModelConfig:
        name = f"own_network_{len(written)}_{tmp_path.name}"
        written.append(name)
        (tmp_path / f"{name}.py").write_text(text)
        return ModelConfig(framework="python", config=f"{name}:{function}", **more)

    yield write
    for name in written:
        sys.modules.pop(name, None)


def some_clips(frames: int = 8, side: tuple[int, int] = (30, 40)) -> list[np.ndarray]:
    return [np.random.RandomState(i).randint(0, 256, (frames, *side, 3), np.uint8) for i in range(2)]


def test_a_plain_network(place: Place) -> None:
    config = place(PLAIN)
    before = list(sys.path)
    recogniser = load_recogniser(config, "cpu")
    assert sys.path == before
    assert recogniser.class_names == ("a", "b", "c")
    assert not recogniser.untrained
    assert recogniser.digest == describe(config).digest
    clips = some_clips()
    found = Extractor(recogniser, ["early", "middle", "head"], "time").extract(clips, [[0], [1, 2]])
    assert found.activations["early"].shape == (2, 3 * 6)
    assert found.gradients["head"].shape == (3, 8)
    assert [row.degenerate for row in layer_table(recogniser, ["early", "head"], frames=8)] == [False, True]
    # Pixels are between 0 and 1 before mean and std.
    flat = np.full((8, 24, 24, 3), 255, np.uint8)
    x = recogniser.preprocess([flat])[0, 0, :, 0, 0, 0]
    torch.testing.assert_close(x, torch.tensor([0.6 / 0.2, 0.5 / 0.25, 0.4 / 0.3]))


def test_weights_come_from_the_function_or_from_a_checkpoint(place: Place, tmp_path: Path) -> None:
    config = place(PLAIN)
    x = torch.ones(1, 3, 8, 24, 24)
    first, again, other = (load_recogniser(config, "cpu", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.logits(x), again.logits(x))
    assert not torch.equal(first.logits(x), other.logits(x))
    assert first.digest == again.digest != other.digest
    file = tmp_path / "w.pth"
    torch.save(other.module.state_dict(), file)
    named = config.model_copy(update={"checkpoint": str(file)})
    loaded = load_recogniser(named, "cpu", seed=0)
    assert torch.equal(loaded.logits(x), other.logits(x))
    assert loaded.digest == describe(named, seed=5).digest
    weights = other.module.state_dict()
    torch.save({key: value for key, value in weights.items() if key != "0.bias"}, file)
    with pytest.raises(StageError, match=r"missing: 0\.bias"):
        load_recogniser(named, "cpu")
    assert load_recogniser(config.model_copy(update={"checkpoint": "untrained"}), "cpu").untrained


def test_the_key_covers_the_source_and_the_function(place: Place, tmp_path: Path) -> None:
    config = place(f"{PLAIN}\nother = build\n")
    name = config.config.partition(":")[0]
    seen = {describe(config).digest, describe(config.model_copy(update={"config": f"{name}:other"})).digest}
    source = tmp_path / f"{name}.py"
    source.write_text(source.read_text().replace("stride=2", "stride=3"))
    seen.add(describe(config).digest)
    assert len(seen) == 3
    assert name not in sys.modules  # a description does not run it


@pytest.mark.parametrize(("function", "shapes"), [
    ("resnet", {"early": (4, 8, 8, 128), "late": (4, 2, 2, 512), "head": (4, 1, 1, 512)}),
    ("vit", {"early": (4, 2, 2, 192), "late": (4, 2, 2, 192), "head": (4, 1, 1, 192)}),
])  # fmt: skip
def test_an_image_network_frame_by_frame(place: Place, function: str, shapes: dict[str, tuple[int, ...]]) -> None:
    need_transformers()
    pytest.importorskip("timm")
    recogniser = load_recogniser(place(FRAME_BY_FRAME, function), "cpu")
    clips = some_clips(frames=4, side=(70, 90))
    extractor = Extractor(recogniser, list(shapes))
    found = extractor.extract(clips, [[0], [1]])
    assert extractor.shapes() == shapes
    assert all(np.abs(gradient).max() > 0 for gradient in found.gradients.values())
    x = recogniser.preprocess(clips)[:, 0]
    frames = torch.stack([recogniser.module.network(x[:, :, t]) for t in range(4)])  # type: ignore[operator]
    torch.testing.assert_close(recogniser.logits(x), frames.mean(0), rtol=1e-4, atol=1e-5)
    assert {row.alias: row.degenerate for row in layer_table(recogniser, list(shapes), frames=4)}["head"]


@pytest.mark.parametrize(("text", "match"), [
    ("def build(): return 3", "must return"),
    ("from torch import nn\ndef build(): return nn.Linear(2, 2)", "not \\(Linear, NoneType\\)"),
    ("build = 3", "has no function"),
    ("import absent_package", "absent_package.*PYTHONPATH"),
    ("def build(:", "SyntaxError"),
    (PLAIN.replace('"a", "b", "c"', '"a", "a", "c"'), "twice: a"),
    (PLAIN.replace("std=(0.2,", "std=(0.0,"), "above 0"),
])  # fmt: skip
def test_functions_that_can_not_be_used_say_why(place: Place, text: str, match: str) -> None:
    config = place(text)
    with pytest.raises(ConfigError, match=match):
        load_recogniser(config, "cpu")


@pytest.mark.parametrize("name", ["asset:recogniser.py", "model.py", "package.module", "a b:c", "s3://b/m:build"])
def test_a_config_that_names_no_function_is_refused(name: str) -> None:
    for use in (describe, lambda c: load_recogniser(c, "cpu")):
        with pytest.raises(ConfigError, match=r"package\.module:function"):
            use(ModelConfig(framework="python", config=name))


def test_a_module_that_is_absent_is_named(place: Place) -> None:
    for name in ("absent_module:build", "absent.module:build"):
        with pytest.raises(ConfigError, match=r"absent.*can't be imported.*PYTHONPATH"):
            describe(ModelConfig(framework="python", config=name))


def test_a_function_that_a_runs_record_names_is_not_run(place: Place, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    config = place(f"open({str(canary)!r}, 'w')\n{PLAIN}")
    for use in (describe, lambda c: load_recogniser(c, "cpu")):
        with pytest.raises(ConfigError, match=r"run\.json.*--trust-code"):
            use(config.trusting("nowhere"))
    assert not canary.exists()
    load_recogniser(config.trusting("anywhere"), "cpu")
    assert canary.exists()


def test_the_example_of_the_page_runs(place: Place) -> None:
    page = (Path(__file__).parents[2] / "docs" / "howto" / "any_model.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    recogniser = load_recogniser(place(text, checkpoint="built"), "cpu")
    assert recogniser.class_names == ("open", "close")
    assert [row.degenerate for row in layer_table(recogniser, ["early", "late", "head"], frames=12)] == [
        False,
        False,
        True,
    ]

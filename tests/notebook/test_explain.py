"""`vtcav_ray.explain` on a small network whose answer is known: `warm` is red minus blue, `cold` the opposite."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import vtcav_ray
from tests.helpers.pretend_gpu import ahead, pretended_gpu
from vtcav_ray.activations import Extractor, extract
from vtcav_ray.errors import ConfigError
from vtcav_ray.notebook import Explanation
from vtcav_ray.video.mp4 import encode_mp4

SMALL = {"random_sets": 6, "permutations": 300, "bootstrap": 100, "progress": False}


class Warm(nn.Module):
    """`[B, 3, T, H, W] -> [B, 2]`."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Conv3d(3, 3, 1)
        self.drop = nn.Dropout(0.5)  # in eval mode it does nothing
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            self.block.weight.copy_(torch.eye(3)[:, :, None, None, None])
            self.block.bias.zero_()
            self.head.weight.copy_(torch.tensor([[1.0, 0.0, -1.0], [-1.0, 0.0, 1.0]]))
            self.head.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(torch.tanh(self.block(x)).mean((2, 3, 4))))


def clips(count: int, *, red: int = 0, blue: int = 0, seed: int = 0, frames: int = 4) -> np.ndarray:
    """Return grey noise, with more red or blue; uint8 [N, T, 8, 8, 3]. Each clip has its own brightness."""
    rng = np.random.default_rng(seed)
    grey = rng.integers(60, 120, (count, 1, 1, 1, 1)) + rng.integers(0, 20, (count, frames, 8, 8, 3))
    return (grey + np.array([red, 0, blue])).clip(0, 255).astype(np.uint8)


SPEC = vtcav_ray.NetworkSpec(
    class_names=["warm", "cold"], input_size=8, layer_aliases={"early": "block", "head": "head:in"}
)


def arguments(**changes: Any) -> dict[str, Any]:
    found = {
        "concepts": {"red": clips(10, red=60, seed=1), "blue": list(clips(10, blue=60, seed=2))},
        "random": clips(40, seed=3),
        "examples": {"warm": clips(6, red=30, seed=4), "cold": clips(6, blue=30, seed=5)},
        "spec": SPEC,
        **SMALL,
    }
    return {**found, **changes}


@pytest.fixture(scope="module")
def explained() -> Explanation:
    return vtcav_ray.explain(Warm(), **arguments())


@pytest.mark.slow
def test_the_colours_have_the_signs_that_the_network_gives_them(explained: Explanation) -> None:
    table = explained.table.query("against == 'random' and layer == 'early'").set_index(["class", "concept"])
    signs = np.sign(table["effect"]).to_dict()
    assert signs == {
        ("warm", "red/given"): 1.0,
        ("warm", "blue/given"): -1.0,
        ("cold", "red/given"): -1.0,
        ("cold", "blue/given"): 1.0,
    }
    assert table["significant"].all()
    assert (table["n_concept"] == 10).all()
    assert (table["n_random"] == 40).all()
    assert set(explained.table["layer"]) == {"early", "head", "answer"}


@pytest.mark.slow
def test_the_effect_is_that_of_the_closed_form(explained: Explanation) -> None:
    # At the answer, the effect is the difference of the mean logits of the concept's and the random clips.
    model, red, random = Warm().eval(), clips(10, red=60, seed=1), clips(40, seed=3)

    def warm(some: np.ndarray) -> float:
        x = torch.from_numpy(some).permute(0, 4, 1, 2, 3).float() / 255
        return float(model(x)[:, 0].mean().detach())

    row = explained.table.query(
        "layer == 'answer' and concept == 'red/given' and against == 'random' and `class` == 'warm'"
    )
    assert row["effect"].item() == pytest.approx(warm(red) - warm(random), abs=1e-5)


def test_it_says_so_in_words_in_html_and_in_a_figure(explained: Explanation) -> None:
    assert explained.summary().startswith("cold: Uses a concept: blue")
    assert "warm: Uses a concept: red" in explained.summary()
    assert explained.verdicts["concept"].tolist() == ["blue/given", "red/given"]
    html = explained._repr_html_()
    assert "<b>warm</b>" in html
    assert "▲" in html
    assert "<script" not in html
    figure = explained.plot("warm")
    assert [panel.get_title() for panel in figure.axes] == ["early", "head", "answer"]
    assert figure.get_suptitle() == "warm"
    assert explained.plot().get_suptitle() in ("warm", "cold")
    assert "significant" in repr(explained)
    with pytest.raises(ValueError, match=r"no class .hot.\. There are: "):
        explained.plot("hot")


def test_a_notebook_shows_some_notes_and_counts_the_others(explained: Explanation) -> None:
    html = dataclasses.replace(explained, warnings=tuple(f"note {i}." for i in range(8)))._repr_html_()
    assert "note 4." in html
    assert "note 5." not in html
    assert "3 more notes" in html


@pytest.mark.slow
def test_names_are_escaped_in_html() -> None:
    found = vtcav_ray.explain(Warm(), **arguments(concepts={"<b>red": clips(10, red=60, seed=1)}))
    assert "<b>red" not in found._repr_html_()
    assert "&lt;b&gt;red" in found._repr_html_()


@pytest.mark.slow
def test_the_model_is_left_as_it_was() -> None:
    model = Warm().train()
    model.head.bias.requires_grad_(False)
    vtcav_ray.explain(model, **arguments())
    assert model.training
    assert model.drop.training
    assert [name for name, weight in model.named_parameters() if not weight.requires_grad] == ["head.bias"]


@pytest.mark.slow
def test_the_order_of_the_clips_changes_nothing(explained: Explanation) -> None:
    given = arguments()
    groups = {
        "concepts": {name: [f"{name}{i}" for i in range(10)] for name in ("red", "blue")},
        "random": [f"r{i}" for i in range(40)],
        "examples": {name: [f"{name}{i}" for i in range(6)] for name in ("warm", "cold")},
    }
    once = vtcav_ray.explain(Warm(), **given, groups=groups)
    turned = {**given, "random": given["random"][::-1], "concepts": dict(reversed(given["concepts"].items()))}
    again = vtcav_ray.explain(Warm(), **turned, groups={**groups, "random": groups["random"][::-1]})
    key = ["class", "layer", "concept", "against"]
    one, other = (t.sort_values(key).reset_index(drop=True) for t in (once.table, again.table))
    assert one["p"].equals(other["p"])
    np.testing.assert_allclose(one["effect"], other["effect"], atol=1e-9)
    assert one["held_out_accuracy"].equals(other["held_out_accuracy"])


@pytest.mark.slow
def test_clips_of_one_source_video_are_one_unit() -> None:
    groups = {"concepts": {"red": [f"v{i // 2}" for i in range(10)]}}
    found = vtcav_ray.explain(Warm(), **arguments(groups=groups)).table.set_index(["concept", "against"])
    assert set(found.loc[("red/given", "random"), "n_concept"]) == {5}
    assert set(found.loc[("blue/given", "random"), "n_concept"]) == {10}


@pytest.mark.slow
def test_a_model_whose_output_has_the_logits_gives_the_same(explained: Explanation) -> None:
    class Wrapped(Warm):
        def forward(self, x: torch.Tensor) -> Any:
            return SimpleNamespace(logits=super().forward(x))

    found = vtcav_ray.explain(Wrapped(), **arguments())
    np.testing.assert_allclose(found.table["effect"], explained.table["effect"], atol=1e-6)


@pytest.mark.slow
def test_kinds_have_random_clips_of_their_own() -> None:
    concepts = {"red/spatial": clips(10, red=60, seed=1), "red/frozen": clips(10, red=60, seed=6)}
    with pytest.raises(ValueError, match="random: the concepts are of the kinds spatial, frozen"):
        vtcav_ray.explain(Warm(), **arguments(concepts=concepts))
    random = {"spatial": clips(30, seed=7), "frozen": clips(30, seed=8)}
    found = vtcav_ray.explain(Warm(), **arguments(concepts=concepts, random=random)).table
    assert set(found["kind"]) == {"spatial", "frozen"}
    with pytest.raises(ValueError, match="no clips of the kind `frozen`"):
        vtcav_ray.explain(Warm(), **arguments(concepts=concepts, random={"spatial": clips(30)}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"concepts": {}}, "concepts: there is none"),
        ({"concepts": {"red": clips(10).astype(np.float32)}}, r"concepts\['red'\]\[0\]: a clip is uint8 .* float32"),
        ({"concepts": {"red": clips(1)}}, r"concepts\['red'\]: 1 clip\(s\)"),
        ({"concepts": {"red/spacial": clips(10)}}, "Did you mean `spatial`"),
        ({"random": clips(20, frames=8)}, "There are 32 of 4 frames, 20 of 8 frames"),
        ({"examples": {"wram": clips(6)}}, "the model has no class 'wram'. It has: warm, cold. The nearest is 'warm'"),
        ({"groups": {"concepts": {"green": []}}}, "groups: concepts have no 'green'. There are: red, blue"),
        ({"groups": {"concepts": {"red": ["a"]}}}, "has 10 clips and 1 source videos"),
        ({"groups": {"negatives": []}}, "groups: no set `negatives`"),
        ({"layers": ["erly"]}, "no layer `erly`. Nearest: early"),
        ({"random": clips(3)}, "No concept has enough clips. .* 10 source videos and 3 random ones"),
        ({"gradients_at": "all"}, "gradients_at: choose `reference` or `own`"),
        ({"reference": 0}, "reference: with 0, set gradients_at"),
        ({"solver": "logit"}, "solver: No solver `logit`.* Did you mean `logistic`"),
        ({"permutations": 5}, "permutations: Input should be greater than or equal to 100"),
        ({"spec": vtcav_ray.NetworkSpec(class_names=["a", "a"], input_size=8)}, "'a' is there twice"),
        ({"spec": vtcav_ray.NetworkSpec(["warm", "cold"], 8, layer_aliases={"late": "blok"})}, "'late' is 'blok'"),
    ],
)
def test_a_mistake_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, ConfigError), match=message):
        vtcav_ray.explain(Warm(), **arguments(**changes))


def test_a_source_video_in_two_sets_is_an_error() -> None:
    groups = {"random": [f"v{i}" for i in range(40)], "examples": {"warm": [f"v{i}" for i in range(6)]}}
    with pytest.raises(ValueError, match="source video 'v0' is in the sets `random` and `class`"):
        vtcav_ray.explain(Warm(), **arguments(groups=groups))


def test_a_plain_module_needs_a_description() -> None:
    with pytest.raises(TypeError, match="NetworkSpec"):
        vtcav_ray.explain(Warm(), **arguments(spec=None))
    with pytest.raises(TypeError, match=r"no setting `permutation`\. Did you mean `permutations`"):
        vtcav_ray.explain(Warm(), **arguments(permutation=100))
    with pytest.raises(ConfigError, match=r"spec\.class_names: 3 names"):
        vtcav_ray.explain(
            Warm(), **arguments(spec=vtcav_ray.NetworkSpec(["warm", "cold", "mild"], 8), layers=["block"])
        )


@pytest.mark.slow
def test_a_clip_that_gives_no_number_is_a_failure() -> None:
    class Broken(Warm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = super().forward(x)
            return torch.where(x.amax((1, 2, 3, 4))[:, None] > 0.99, torch.nan, out)

    red = clips(10, red=60, seed=1)
    red[3, 0, 0, 0] = 255
    found = vtcav_ray.explain(Broken(), **arguments(concepts={"red": red}))
    assert [failure.clip_id for failure in found.failures] == ["concept/red/given#3"]
    assert "1 of 62 clips can't be used. The first: concept/red/given#3, NaN" in found.warnings[0]
    assert set(found.table.query("concept == 'red/given'")["n_concept"]) == {9}


@pytest.mark.slow
def test_on_a_gpu_everything_is_in_the_right_place(explained: Explanation, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a simulated GPU: the model, the CAVs and the statistics run where the model's weights are."""
    monkeypatch.setattr(extract, "batches_ahead", ahead)
    monkeypatch.setattr(Extractor, "choose_batch_size", lambda self, *_, **__: setattr(self, "batch_size", 8))
    with pretended_gpu():
        model = Warm()
        model.to("cuda")
        found = vtcav_ray.explain(model, **arguments())
    for column in ("effect", "p", "tcav_score", "held_out_accuracy"):
        np.testing.assert_allclose(found.table[column], explained.table[column], atol=1e-5, err_msg=column)


def test_clips_are_read_from_the_middle_of_videos(tmp_path: Path) -> None:
    for number, frames in enumerate((20, 16)):
        ramp = np.repeat(np.arange(frames, dtype=np.uint8)[:, None, None, None] * 8, 32 * 48 * 3).reshape(-1, 32, 48, 3)
        (tmp_path / f"{number}.mp4").write_bytes(encode_mp4(ramp, 25))
    (tmp_path / ".hidden").write_bytes(b"")
    one, other = vtcav_ray.read_clips(tmp_path, frames=16)
    assert one.shape == other.shape == (16, 32, 48, 3)
    np.testing.assert_allclose(one.mean((1, 2, 3)), np.arange(2, 18) * 8, atol=4)
    (tmp_path / "2.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"2\.mp4 can't be used"):
        vtcav_ray.read_clips(tmp_path, frames=16)
    with pytest.warns(UserWarning, match=r"2\.mp4 is left out"):
        assert len(vtcav_ray.read_clips(tmp_path, frames=16, skip_bad=True)) == 2
    assert len(vtcav_ray.read_clips([tmp_path / "0.mp4"], frames=4, interval=2)) == 1
    with pytest.raises(ValueError, match="no video"):
        vtcav_ray.read_clips([])

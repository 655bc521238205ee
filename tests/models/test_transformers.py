"""Hugging Face's video classifiers: equal to the library's own processors and models, their layers, and bad folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

from tests.helpers.hugging_face import ARCHITECTURES, FRAMES, NAMES, SIDE, model, need_transformers, recogniser_at, save
from vtcav_ray.activations import Extractor
from vtcav_ray.config import ModelConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.models import checkpoint_digest, describe, load_recogniser
from vtcav_ray.models.layer_table import layer_table
from vtcav_ray.models.layers import find_forms
from vtcav_ray.models.rest import RestOfNetwork
from vtcav_ray.video.decode import Video
from vtcav_ray.world import write_world

LAYERS = ("early", "middle", "late", "head")


@pytest.fixture(scope="module", autouse=True)
def _transformers() -> None:
    need_transformers()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """Frames of encoded videos, which are resized and cropped in both directions."""
    world = tmp_path_factory.mktemp("world")
    write_world(str(world), videos=3, seed=1, frames=(16, 16), size=(64, 96), distractors=(0, 0))
    found = []
    for path in sorted(world.rglob("*.mp4")):
        with Video(str(path)) as video:
            found.append(video.read(range(1, 4 * FRAMES, 4)))
    assert len(found) == 3
    return [found[0], found[1].transpose(0, 2, 1, 3).copy(), found[2][:, :SIDE, :SIDE].copy()]


def theirs(folder: str, clip: np.ndarray, auto: str = "AutoVideoProcessor") -> torch.Tensor:
    """Return the logits of the library's own processor and model, `[K]`, as its pipeline computes them."""
    import transformers

    processor = getattr(transformers, auto).from_pretrained(folder)
    module = transformers.AutoModelForVideoClassification.from_pretrained(folder).eval()
    frames = list(clip) if auto == "AutoImageProcessor" else clip
    with torch.no_grad():
        return module(**processor(frames, return_tensors="pt")).logits.flatten()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_logits_equal_the_librarys(folders: dict[str, str], clips: list[np.ndarray], kind: str) -> None:
    recogniser = recogniser_at(folders[kind])
    expected = torch.stack([theirs(folders[kind], clip) for clip in clips])
    found = torch.cat([recogniser.logits(recogniser.preprocess([clip])[:, 0]) for clip in clips])
    assert (expected[0] - expected[1]).abs().max() > 0.01  # the clips are told apart
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert recogniser.class_names == tuple(NAMES.values())
    assert recogniser.description == describe(ModelConfig(framework="transformers", checkpoint=folders[kind]))


@pytest.mark.slow
def test_every_architecture_of_the_installed_library_is_tested() -> None:
    from vtcav_ray.models.transformers_models import architectures

    assert set(architectures()) == set(ARCHITECTURES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["VideoMAEImageProcessor", "VivitImageProcessor"])
def test_folders_with_an_image_processor(tmp_path: Path, clips: list[np.ndarray], name: str) -> None:
    """Published folders are older than the video processors."""
    import transformers

    kind = "videomae" if name.startswith("VideoMAE") else "vivit"
    own = getattr(transformers, name)(size={"shortest_edge": 40}, crop_size={"height": SIDE, "width": SIDE})
    folder = save(kind, tmp_path / "m", own_processor=own)
    recogniser = recogniser_at(folder)
    for auto in ("AutoVideoProcessor", "AutoImageProcessor"):
        for clip in clips:
            found = recogniser.logits(recogniser.preprocess([clip])[:, 0])[0]
            # Pillow and torch round a few pixels of a resized frame differently, by one of 255 levels.
            atol = 1e-4 if auto == "AutoVideoProcessor" or clip.shape[1:3] == (SIDE, SIDE) else 2e-2
            torch.testing.assert_close(found, theirs(folder, clip, auto), rtol=0, atol=atol)


@pytest.mark.slow
def test_a_folder_without_a_processor_gets_the_networks_own(tmp_path: Path, clips: list[np.ndarray]) -> None:
    from transformers import VideoMAEVideoProcessor

    crop = {"height": SIDE, "width": SIDE}
    own = VideoMAEVideoProcessor(size={"shortest_edge": SIDE}, crop_size=crop)
    folder = save("videomae", tmp_path / "m", own_processor=own)
    expected = theirs(folder, clips[0])
    (Path(folder) / "video_preprocessor_config.json").unlink()
    recogniser = recogniser_at(folder)
    torch.testing.assert_close(
        recogniser.logits(recogniser.preprocess([clips[0]])[:, 0])[0], expected, rtol=0, atol=1e-4
    )
    other = save("videoprism_vision_model", tmp_path / "other")
    (Path(other) / "video_preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match=r"no preprocessor_config\.json.*processor\.save_pretrained"):
        describe(ModelConfig(framework="transformers", checkpoint=other))


GRIDS = {  # kind -> T', H', W', C of early, middle and late
    "videomae": (2, 4, 4, 16),
    "vivit": (2, 4, 4, 16),
    "timesformer": (4, 4, 4, 16),
    "vjepa2": (2, 4, 4, 16),
    "videoprism_vision_model": (4, 4, 4, 16),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_layers_have_token_grids_and_the_head_is_degenerate(folders: dict[str, str], kind: str) -> None:
    recogniser = recogniser_at(folders[kind])
    rows = {row.alias: row for row in layer_table(recogniser, LAYERS, frames=FRAMES)}
    assert {alias: rows[alias].shape for alias in LAYERS[:3]} == dict.fromkeys(LAYERS[:3], GRIDS[kind])
    assert rows["head"].shape == (1, 1, 1, 16)
    assert [rows[alias].degenerate for alias in LAYERS] == [False, False, False, True]
    assert rows["early"].cost >= rows["middle"].cost >= rows["late"].cost >= rows["head"].cost


@pytest.mark.slow
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_tokens_lie_where_the_clip_has_them(folders: dict[str, str], kind: str) -> None:
    """Change one patch of the clip: the tokens' embeddings differ only at its place and time."""
    recogniser = recogniser_at(folders[kind])
    embedding = {
        "videomae": "videomae.embeddings", "vivit": "vivit.embeddings", "timesformer": "timesformer.embeddings",
        "vjepa2": "vjepa2.encoder.embeddings", "videoprism_vision_model": "vision_model.spatial_embeddings",
    }[kind]  # fmt: skip
    x = torch.zeros(1, 3, FRAMES, SIDE, SIDE)
    changed = x.clone()
    changed[:, :, 2, 8:16, 16:24] = 1.0
    form = find_forms(recogniser, [embedding], x)[embedding]
    seen = []
    for clip in (x, changed):
        kept: list[torch.Tensor] = []
        part = recogniser.module.get_submodule(embedding)
        handle = part.register_forward_hook(lambda _, __, output, kept=kept: kept.append(output))
        recogniser.logits(clip)
        handle.remove()
        seen.append(form.present(kept[0] if isinstance(kept[0], torch.Tensor) else kept[0][0]))
    (place,) = {tuple(p.tolist()) for p in (seen[0] != seen[1]).any(-1).nonzero()}
    time = 2 if GRIDS[kind][0] == FRAMES else 1
    assert place == (0, time, 1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_projections_gradients_and_the_rest_of_the_network(
    folders: dict[str, str], clips: list[np.ndarray], kind: str
) -> None:
    recogniser = recogniser_at(folders[kind])
    layers = ["early@moving", "middle@grid:2", "late", "head"]
    found = Extractor(recogniser, layers).extract(clips[:1] * 2, [[0], [1, 2]])
    assert {layer: found.activations[layer].shape[1] for layer in layers} == dict(
        zip(layers, (16, 64, 16, 16), strict=True)
    )
    assert all(np.abs(found.gradients[layer]).max() > 0 for layer in layers)
    x = recogniser.preprocess(clips[:1])[:, 0]
    for alias in LAYERS:
        rest = RestOfNetwork(recogniser, recogniser.layer_aliases[alias], x)
        assert not rest.whole, alias  # the recorded outputs reproduce the logits
        moved = rest.raw + 0.5 * torch.randn(rest.raw.shape, generator=torch.Generator().manual_seed(0))
        assert (rest.logits(moved) - rest.plain).abs().max() > 1e-3


@pytest.mark.slow
def test_attention_runs_through_sdpa(folders: dict[str, str]) -> None:
    for kind in ("videomae", "vivit", "vjepa2"):
        assert recogniser_at(folders[kind]).module.config._attn_implementation == "sdpa"


def test_clips_of_another_length_are_refused_by_name(folders: dict[str, str], clips: list[np.ndarray]) -> None:
    recogniser = recogniser_at(folders["videomae"])
    with pytest.raises(ConfigError, match=r"exactly 4 frames, not 3: set clips\.frames to 4"):
        recogniser.preprocess([clips[0][:3]])
    with pytest.raises(ConfigError, match="exactly 4 frames, not 8"):
        layer_table(recogniser, frames=8)


def test_a_url_gives_the_same_network_and_key(folders: dict[str, str], clips: list[np.ndarray]) -> None:
    local, remote = Path(folders["vivit"]), "memory://models/vivit"
    for file in local.iterdir():
        with fsspec.open(f"{remote}/{file.name}", "wb") as written:
            written.write(file.read_bytes())
    ours, other = recogniser_at(str(local)), recogniser_at(remote)
    assert ours.digest == other.digest
    x = ours.preprocess(clips[:1])[:, 0]
    assert torch.equal(ours.logits(x), other.logits(x))


@pytest.mark.slow
def test_shards_are_loaded_and_part_of_the_key(
    tmp_path: Path, folders: dict[str, str], clips: list[np.ndarray]
) -> None:
    model("videomae").save_pretrained(str(tmp_path / "sharded"), max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    shutil.copy(Path(folders["videomae"]) / "video_preprocessor_config.json", tmp_path / "sharded")
    ours, whole = recogniser_at(str(tmp_path / "sharded")), recogniser_at(folders["videomae"])
    x = whole.preprocess(clips[:1])[:, 0]
    torch.testing.assert_close(ours.logits(x), whole.logits(x), rtol=0, atol=1e-6)


def test_the_key_holds_weights_config_and_processor(tmp_path: Path, folders: dict[str, str]) -> None:
    def digest(folder: Path) -> str:
        return describe(ModelConfig(framework="transformers", checkpoint=str(folder))).digest

    seen = {digest(Path(folders["videomae"]))}
    names = {str(i): name for i, name in enumerate("wxyz")}
    changes: list[tuple[str, dict[str, Any]]] = [
        ("config.json", {"hidden_act": "relu"}),
        ("config.json", {"id2label": names}),
        ("video_preprocessor_config.json", {"image_mean": [0.4, 0.5, 0.5]}),
    ]
    for number, (file, change) in enumerate(changes):
        folder = Path(shutil.copytree(folders["videomae"], tmp_path / str(number)))
        data = json.loads((folder / file).read_text()) | change
        (folder / file).write_text(json.dumps(data))
        seen.add(digest(folder))
    other = Path(save("videomae", tmp_path / "other", seed=1))
    seen.add(digest(other))
    assert len(seen) == 5
    # Where the folder lies, and which version of the library wrote it, do not count.
    copy = Path(shutil.copytree(folders["videomae"], tmp_path / "copy"))
    data = json.loads((copy / "config.json").read_text()) | {"transformers_version": "4.0.0"}
    (copy / "config.json").write_text(json.dumps(data))
    assert digest(copy) in seen
    weights = {checkpoint_digest(ModelConfig(framework="transformers", checkpoint=str(f))) for f in (copy, other)}
    assert len(weights) == 2


def test_untrained_weights_come_from_the_seed(folders: dict[str, str]) -> None:
    config = ModelConfig(framework="transformers", config=folders["videomae"], checkpoint="untrained")
    state = torch.random.get_rng_state()
    first, again, other = (load_recogniser(config, "cpu", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert first.untrained
    x = torch.ones(1, 3, FRAMES, SIDE, SIDE)
    assert torch.equal(first.logits(x), again.logits(x))
    assert not torch.equal(first.logits(x), other.logits(x))
    assert first.digest != other.digest

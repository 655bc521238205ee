"""Code that runs only on a GPU, on a simulated one: every tensor is in the right place, and results equal the CPU's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.pretend_gpu import GPU, OnGpu, ahead, pretended_gpu
from vtcav_ray.activations import Extractor, extract
from vtcav_ray.activations.stage import ExtractWorker
from vtcav_ray.cavs import gram, train, train_cavs
from vtcav_ray.config import Config, ModelConfig, TracksConfig
from vtcav_ray.config.loading import parse_config
from vtcav_ray.gradcam.maps import GradCam
from vtcav_ray.gradcam.worker import GradcamWorker
from vtcav_ray.models import load_recogniser, swin_attention
from vtcav_ray.registry import SOLVERS
from vtcav_ray.runs.devices import device_for
from vtcav_ray.store.commits import StageFolder
from vtcav_ray.store.folder import Folder
from vtcav_ray.tcav import concept_effects, paired_concept_effects, score, score_intervals
from vtcav_ray.tracks.detect import Detector
from vtcav_ray.tracks.stage import TrackWorker


def test_the_pretence_refuses_what_a_gpu_would() -> None:
    with pretended_gpu():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert there.device.type == "cuda"
        assert (there * 2).is_cuda
        assert there.cpu().device.type == "cpu"
        assert here.to(there).device == GPU
        assert torch.zeros_like(there).is_cuda
        there[0] = torch.tensor(2.0)
        there[1:] = torch.zeros(2)  # a copy may cross devices
        assert there[torch.tensor([0])].tolist() == [2.0]
        for wrong in (
            lambda: there + here,
            lambda: torch.isin(there, here),
            lambda: here[torch.zeros(1, dtype=torch.int64, device="cuda")],
            lambda: there.index_select(0, torch.tensor([0])),
            lambda: torch.cat((there, here)),
        ):
            with pytest.raises(RuntimeError, match="same device"):
                wrong()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        with pytest.raises(TypeError, match="numpy"):
            np.asarray(there)


def rows(count: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32) + np.float32(0.3)


@pytest.mark.slow
@pytest.mark.parametrize("dim", [64, 5])  # with 5, most CAVs' sums cancel and are recomputed from the rows
@pytest.mark.parametrize("solver", list(SOLVERS))
def test_cavs(solver: str, dim: int) -> None:
    pool = rows(120, dim) * np.float32(30 if dim == 5 else 1)
    positives = [np.arange(n) for n in (12, 15, 20, 9, 14)]  # different sizes, so padded
    negatives = [np.arange(60 + 5 * i, 60 + 5 * i + n) for i, n in enumerate((12, 15, 14, 9, 20))]
    here = train_cavs(pool, positives, negatives, solver=solver)
    with pretended_gpu():
        matrix = gram(pool, device="cuda")
        assert matrix.inner_NN.is_cuda
        there = train_cavs(matrix, positives, negatives, solver=solver)
    assert there.reason == here.reason
    np.testing.assert_array_equal(there.held_out_accuracy, here.held_out_accuracy)
    cosines = np.einsum("md,md->m", there.vectors, here.vectors)
    np.testing.assert_allclose(cosines[np.isfinite(cosines)], 1.0, atol=1e-4)
    np.testing.assert_allclose(there.bias, here.bias, rtol=1e-3, atol=1e-3)


@pytest.mark.full
def test_cavs_whose_kernel_float32_can_not_hold() -> None:
    """The factor in float32 is not a number. A GPU must notice that, as LAPACK does, and continue in float64."""
    pool = rows(60, 100).astype(np.float64) * 1e20  # inner products of 1e42
    sides = [np.arange(20)], [np.arange(30, 50)]
    here = train_cavs(pool, *sides)
    with pretended_gpu():
        there = train_cavs(gram(pool, device="cuda"), *sides)
    assert there.reason == here.reason
    np.testing.assert_allclose(there.vectors, here.vectors, atol=1e-4)


def test_scores_and_intervals() -> None:
    gradients, cavs = rows(12, 16), rows(40, 16, 1)
    cavs[3] = np.nan
    here = score(gradients, cavs, groups=list("aabbccddeeff"), sensitivities=True)
    with pretended_gpu():
        there = score(gradients, cavs, groups=list("aabbccddeeff"), sensitivities=True, device="cuda")
    assert here.sensitivities is not None
    assert there.sensitivities is not None
    for name in ("sign_count", "magnitude", "smooth", "scale", "sensitivities"):
        np.testing.assert_allclose(getattr(there, name), getattr(here, name), rtol=1e-5, atol=1e-6)
    expected = score_intervals(here.sensitivities, 8, bootstrap=200)
    with pretended_gpu():
        found = score_intervals(there.sensitivities, 8, bootstrap=200, device="cuda")
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("compute", [concept_effects, paired_concept_effects])
def test_effects(compute: Any) -> None:
    pool = rows(60, 16)
    gradients = [rows(n, 16, n) for n in (9, 12)]  # classes of different sizes, so padded
    concepts, others = [np.arange(15), np.arange(5, 20)], [np.arange(30, 45), np.arange(40, 55)]
    groups = None if compute is paired_concept_effects else [f"video{i // 2}" for i in range(60)]
    settings: dict[str, Any] = {"groups": groups, "permutations": 300, "bootstrap": 100}
    here = compute(gradients, pool, concepts, others, **settings)
    with pretended_gpu():
        there = compute(gradients, pool, concepts, others, **settings, device="cuda")
    for name in ("effect", "null_sd", "p", "ci_low", "ci_high", "null_counts"):
        np.testing.assert_allclose(getattr(there, name), getattr(here, name), rtol=1e-4, atol=1e-6)


LAYERS = ["early@moving", "early@grid:2", "early@sketch:64", "middle@space", "late", "head"]


@pytest.mark.slow
def test_extraction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "batches_ahead", ahead)
    clips = list(np.random.default_rng(0).integers(0, 256, (3, 16, 64, 64, 3), dtype=np.uint8))
    classes: list[list[int] | None] = [[0, 1], [2], None]

    def extracted(device: str, target: Any) -> Any:
        extractor = Extractor(load_recogniser(ModelConfig(), device), LAYERS, target=target, batch_size=2)
        return extractor.extract(clips, classes, top=1)

    for target in ("logit", "log_odds"):
        here = extracted("cpu", target)
        with pretended_gpu():
            there = extracted("cuda", target)
        for layer in LAYERS:
            for name in ("activations", "gradients"):
                expected, found = getattr(here, name)[layer], getattr(there, name)[layer]
                np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
        np.testing.assert_allclose(there.logits, here.logits, rtol=1e-3, atol=1e-3)


def test_a_recogniser_goes_to_the_gpu_as_a_whole() -> None:
    with pretended_gpu():
        module = load_recogniser(ModelConfig(), "cuda").module
        for tensor in (*module.parameters(), *module.buffers()):
            assert isinstance(tensor, OnGpu)


@pytest.mark.slow
def test_gradcam() -> None:
    clip = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    plays = [tuple(range(16)), tuple(range(15, -1, -1))]

    def maps(device: str) -> Any:
        model = GradCam(load_recogniser(ModelConfig(), device), ["middle", "late"])
        return model(model.prepare(clip), plays, 1)

    here = maps("cpu")
    with pretended_gpu():
        there = maps("cuda")
    for layer, expected in here.maps.items():
        torch.testing.assert_close(there.maps[layer], expected, rtol=1e-2, atol=1e-4)
    np.testing.assert_allclose(there.logits, here.logits, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [None, ("cup",)])
def test_detection(classes: tuple[str, ...] | None) -> None:
    config = TracksConfig(image_size=64, batch_size=2, confidence=0.01, classes=classes)
    frames = list(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8))
    here = Detector(config, "cpu")(frames)
    with pretended_gpu():
        there = Detector(config, "cuda")(frames)
    assert sum(len(one.boxes) for one in here)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(other.boxes, one.boxes, atol=0.05)
        np.testing.assert_array_equal(other.classes, one.classes)


def config_with(gpus: float) -> Config:
    section = {"gpus": gpus, "batch_size": 2}
    return parse_config(
        {
            "videos": {"uri": "none"},
            "activations": {"layers": ["late"]},
            "resources": {"detect": section, "extract": section},
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (0.5, "cuda")])
def test_an_actor_uses_a_gpu_only_where_it_has_one(gpus: float, device: str, tmp_path: Path) -> None:
    """Ray does not hide the GPUs from an actor without GPUs."""
    config = config_with(gpus)
    folder = Folder(str(tmp_path))
    stage = StageFolder("clips", "k", folder)
    with pretended_gpu():
        assert TrackWorker(config).source.detector.device.type == device
        assert ExtractWorker(config, stage, folder).recogniser.device.type == device
        assert GradcamWorker(config, stage, stage, folder).model.recogniser.device.type == device
        assert device_for(config.resources.extract).type == device


def test_the_bias_of_a_part_beside_a_seam_is_aligned_on_a_gpu() -> None:
    bias = torch.randn(3, 196, 196)
    assert swin_attention._aligned(bias) is bias, "a CPU takes it as it is"
    with pretended_gpu():
        found = swin_attention._aligned(bias.to("cuda"))
        mask = found.expand(5, -1, -1, -1)
        assert all(stride % swin_attention.MASK_ALIGNMENT == 0 for stride in mask.stride()[:-1])
        assert mask.stride(-1) == 1
        assert torch.equal(found.cpu(), bias)


@pytest.mark.slow
def test_a_gpu_trains_more_cavs_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result does not depend on the number of CAVs per call."""
    pool, sides = rows(80, 16), ([np.arange(n) for n in range(8, 16)], [np.arange(40, 40 + n) for n in range(8, 16)])
    with pretended_gpu():
        matrix = gram(pool, device="cuda")
        together = train_cavs(matrix, *sides)
        monkeypatch.setattr(train, "_CHUNK_NUMBERS_GPU", 1)
        apart = train_cavs(matrix, *sides)
    np.testing.assert_allclose(together.vectors, apart.vectors, atol=1e-5)

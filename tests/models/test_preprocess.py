"""The package's preprocessing agrees with MMAction2's own transforms on the same frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vtcav_ray.config import ClipsConfig, ModelConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.models import Recogniser, load_recogniser
from vtcav_ray.models.config_files import read_config
from vtcav_ray.models.preprocess import Sampling, make_preprocessor, read_sampling
from vtcav_ray.models.swin_attention import fuse_window_attention, restore_mmaction
from vtcav_ray.video.decode import Video
from vtcav_ray.video.sample import spread_clips

SWIN_T = "swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb"
NORMALISATION = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}


def theirs(pipeline: Any, frames: np.ndarray, data_preprocessor: Any) -> torch.Tensor:
    """Apply MMAction2's transforms after decoding, and its data preprocessor: `[V, C, T, H, W]`."""
    from mmaction.models.data_preprocessors import ActionDataPreprocessor
    from mmaction.registry import TRANSFORMS

    results: dict[str, Any] = {
        "imgs": list(frames), "img_shape": frames.shape[1:3], "original_shape": frames.shape[1:3],
        "num_clips": 1, "clip_len": len(frames), "modality": "RGB", "label": 0,
    }  # fmt: skip
    for step in pipeline:
        if step["type"] in ("Resize", "CenterCrop", "ThreeCrop", "TenCrop", "FormatShape", "PackActionInputs"):
            results = TRANSFORMS.build(dict(step)).transform(results)
    settings = {k: v for k, v in data_preprocessor.items() if k not in ("type", "blending")}
    return ActionDataPreprocessor(**settings).preprocess([results["inputs"]], None)[0][0]


@pytest.mark.parametrize("size", [(256, 340), (340, 256), (144, 176), (225, 301)])
@pytest.mark.parametrize(
    "config",
    [
        SWIN_T,
        "x3d_m_16x5x1_facebook-kinetics400-rgb",
        "c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb",
        "mvit-small-p244_32xb16-16x4x1-200e_kinetics400-rgb",
    ],
)
def test_pixels_equal_mmaction(swin: Recogniser, config: str, size: tuple[int, int]) -> None:
    parsed = read_config(config)
    ours = make_preprocessor(parsed.pipeline, parsed.model["data_preprocessor"])
    frames = np.random.RandomState(0).randint(0, 256, (4, *size, 3), np.uint8)
    expected = theirs(parsed.pipeline, frames, parsed.model["data_preprocessor"])
    test = ours([frames], "test", torch.device("cpu"))
    assert test.shape[1] == len(expected)
    torch.testing.assert_close(test[0], expected, rtol=0, atol=1e-6)
    center = ours([frames], "center", torch.device("cpu"))
    assert center.shape[1] == 1
    assert center.shape[-2:] == ours.input_size
    # the middle crop of three is the centre crop
    torch.testing.assert_close(
        center[0, 0], expected[len(expected) // 2 if len(expected) == 1 else 2], rtol=0, atol=1e-6
    )


def test_ten_crops_and_fixed_resize_and_swapped_channels_equal_mmaction(swin: Recogniser) -> None:
    frames = np.random.RandomState(0).randint(0, 256, (3, 60, 83, 3), np.uint8)
    pipelines: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
        ([{"type": "Resize", "scale": (-1, 40)}, {"type": "TenCrop", "crop_size": 33}], {"to_rgb": True}),
        ([{"type": "Resize", "scale": (48, 32), "keep_ratio": False, "interpolation": "bicubic"}], {}),
        ([{"type": "Resize", "scale": (50, 40)}, {"type": "CenterCrop", "crop_size": (20, 30)}], {}),
    ]
    tail = [{"type": "FormatShape", "input_format": "NCTHW"}, {"type": "PackActionInputs"}]
    for steps, more in pipelines:
        settings = {**NORMALISATION, "format_shape": "NCTHW", **more}
        ours = make_preprocessor([*steps, *tail], settings)([frames], "test", torch.device("cpu"))[0]
        torch.testing.assert_close(ours, theirs([*steps, *tail], frames, settings), rtol=0, atol=1e-6)


def test_clips_of_different_sizes_go_into_one_batch(swin: Recogniser) -> None:
    stream = np.random.RandomState(0)
    clips = [stream.randint(0, 256, (16, h, w, 3), np.uint8) for h, w in ((64, 64), (80, 64), (64, 99))]
    x = swin.preprocess(clips)
    assert x.shape == (3, 1, 3, 16, 64, 64)
    assert torch.equal(swin.preprocess(clips[2:])[0], x[2])


def test_sampling_is_the_config_s() -> None:
    parsed = read_config(SWIN_T)
    assert make_preprocessor(parsed.pipeline, {}).sampling == Sampling(32, 2, 4)
    tsm = read_config("tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e_kinetics400-rgb")
    assert make_preprocessor(tsm.pipeline, {}).sampling == Sampling(1, 1, 8)
    assert Sampling(1, 1, 8).frames == 8


@pytest.mark.parametrize(
    ("steps", "settings", "message"),
    [
        ([{"type": "Sharpen"}], {}, "Sharpen"),
        ([{"type": "Resize", "scale": (-1, 64)}], {}, "any size"),
        ([{"type": "CenterCrop", "crop_size": 8}], {"mean": [128] * 2, "std": [1] * 2}, "2 channels"),
        ([{"type": "CenterCrop", "crop_size": 8}, {"type": "Resize", "scale": (4, 4)}], {}, "after it crops"),
    ],
)
def test_pipelines_that_are_not_supported(steps: Any, settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_preprocessor(steps, settings)


def test_three_crops_of_frames_that_fit_neither_side() -> None:
    ours = make_preprocessor([{"type": "ThreeCrop", "crop_size": 8}], {})
    with pytest.raises(ConfigError, match="one side of that size"):
        ours([np.zeros((1, 9, 10, 3), np.uint8)], "test", torch.device("cpu"))
    with pytest.raises(ConfigError, match="does not fit"):
        ours([np.zeros((1, 7, 10, 3), np.uint8)], "test", torch.device("cpu"))


def real_logits(
    recogniser: Recogniser, plain: Any, pipeline: Any, video: Path, clips: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits of each crop of each clip of a real video, by this package and by MMAction2's own pipeline."""
    from mmengine.dataset import Compose

    asked = [dict(step, num_clips=clips) if step["type"] == "SampleFrames" else dict(step) for step in pipeline]
    source = {"filename": str(video), "label": 0, "start_index": 0, "modality": "RGB"}
    data = Compose(asked)(dict(source))
    batch = plain.data_preprocessor({"inputs": [data["inputs"]], "data_samples": [data["data_samples"]]})
    sampling = read_sampling(asked)
    assert sampling is not None
    assert sampling.frame_interval is not None
    config = ClipsConfig(frames=sampling.clip_len, interval=sampling.frame_interval, class_views=clips)
    with Video(str(video)) as opened:
        indices = spread_clips(opened.count(), config.frames, config.interval, config.class_views)
        frames = dict(opened.frames_at(sorted({int(i) for i in indices.ravel()})))
    cut = [np.stack([frames[int(i)] for i in one]) for one in indices]
    with torch.no_grad():
        expected = plain.cls_head(plain.extract_feat(batch["inputs"], test_mode=True)[0])
        ours = torch.stack([recogniser.logits(x) for x in recogniser.preprocess(cut, "test")], dim=1)
    return ours.flatten(0, 1), expected  # MMAction2 returns all clips of the first crop first


@pytest.mark.slow
@pytest.mark.shared
def test_logits_of_real_clips_equal_mmaction(swin: Recogniser, shared_data: Path) -> None:
    import copy

    plain = copy.deepcopy(swin.module)
    restore_mmaction(plain)
    pipeline = read_config("asset:recogniser.py").pipeline
    videos = sorted((shared_data / "videos" / "kinetics400").glob("*/*.mp4"))[::3]
    videos += sorted((shared_data / "videos" / "gestures").glob("*.mkv"))[:1]
    assert len(videos) >= 3
    for video in videos:
        ours, expected = real_logits(swin, plain, pipeline, video, clips=3)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


@pytest.mark.full
@pytest.mark.shared
def test_logits_of_a_real_clip_equal_mmaction_full_size(shared_data: Path) -> None:
    from vtcav_ray.models.mmaction import build_mmaction

    recogniser = load_recogniser(ModelConfig(config=SWIN_T, checkpoint="untrained"), "cpu")
    parsed = read_config(SWIN_T)
    plain = build_mmaction(parsed, SWIN_T, seed=0)
    plain.load_state_dict(recogniser.module.state_dict())
    assert fuse_window_attention(recogniser.module) > 0
    video = next(iter(sorted((shared_data / "videos" / "kinetics400").glob("*/*.mp4"))))
    ours, expected = real_logits(recogniser, plain, parsed.pipeline, video, clips=2)
    assert ours.shape == (6, 400)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)

# ruff: noqa: C408 (MMAction2's configs are written with dict)
"""MMAction2 configs of two small recognisers: a Video Swin and a 3D ResNet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how.

    Attributes:
        architecture: `swin` or `resnet3d`.
        frames, interval: of a clip; the interval is in source frames.
        side: of the square input, pixels. Frames are squeezed to a square, so nothing at their edges is lost.
        cut_rows: share of the rows that is cut off at the top, and again at the bottom.
        zoom: least share of a frame's area in a training clip, drawn at random for each clip; 1: whole frames.
        epochs, batch, rate, weight_decay: of AdamW, with a warm-up and a cosine down to zero.
        seed: of weights, order and crops.
    """

    architecture: str = "swin"
    frames: int = 8
    interval: int = 6
    side: int = 64
    cut_rows: float = 0.0
    zoom: float = 0.7
    epochs: int = 30
    batch: int = 16
    rate: float = 5e-4
    weight_decay: float = 0.05
    seed: int = 0


def swin(frames: int, classes: int) -> dict[str, Any]:
    """Return the model of the planted world's recogniser (1.5 M parameters), for any even number of frames."""
    return dict(
        type="Recognizer3D",
        backbone=dict(
            type="SwinTransformer3D",
            arch=dict(embed_dims=32, depths=[2, 2, 2, 1], num_heads=[2, 4, 8, 8]),
            pretrained=None,
            pretrained2d=False,
            patch_size=(2, 4, 4),
            window_size=(max(frames // 2, 8), 4, 4),  # all of time; 8 as in the planted world, so its weights fit
            drop_path_rate=0.0,
            patch_norm=True,
        ),
        data_preprocessor=dict(type="ActionDataPreprocessor", mean=MEAN, std=STD, format_shape="NCTHW"),
        cls_head=_head(256, classes, dropout=0.0),
    )


def resnet3d(frames: int, classes: int) -> dict[str, Any]:
    """Return a ResNet3d-18 with a quarter of the usual channels (2 M parameters)."""
    return dict(
        type="Recognizer3D",
        backbone=dict(
            type="ResNet3d",
            depth=18,
            pretrained=None,
            pretrained2d=False,
            base_channels=16,
            conv1_kernel=(3, 7, 7),
            conv1_stride_t=1,
            pool1_stride_t=1,
            temporal_strides=(1, 1, 2, 2) if frames >= 8 else (1, 1, 1, 1),
            inflate=(1, 1, 1, 1),
            norm_eval=False,
            zero_init_residual=False,
        ),
        data_preprocessor=dict(type="ActionDataPreprocessor", mean=MEAN, std=STD, format_shape="NCTHW"),
        cls_head=_head(128, classes, dropout=0.2),
    )


MODELS = {"swin": swin, "resnet3d": resnet3d}


def _head(channels: int, classes: int, dropout: float) -> dict[str, Any]:
    return dict(
        type="I3DHead",
        in_channels=channels,
        num_classes=classes,
        spatial_type="avg",
        dropout_ratio=dropout,
        average_clips="prob",
    )


def test_pipeline(recipe: Recipe) -> list[dict[str, Any]]:
    """Return the steps from a video to the model's input: one clip from the middle."""
    side, rows = recipe.side, round(recipe.side / (1 - 2 * recipe.cut_rows))
    crop = [dict(type="CenterCrop", crop_size=side)] if rows != side else []
    return [
        dict(type="DecordInit"),
        dict(type="SampleFrames", clip_len=recipe.frames, frame_interval=recipe.interval, num_clips=1, test_mode=True),
        dict(type="DecordDecode"),
        dict(type="Resize", scale=(side, rows), keep_ratio=False),
        *crop,
        dict(type="FormatShape", input_format="NCTHW"),
        dict(type="PackActionInputs"),
    ]


def train_pipeline(recipe: Recipe) -> list[dict[str, Any]]:
    """Return the same steps with a random start and, after the rows are cut off, a random crop. Nothing is mirrored."""
    steps = test_pipeline(recipe)
    steps[1] = dict(type="SampleFrames", clip_len=recipe.frames, frame_interval=recipe.interval, num_clips=1)
    if recipe.zoom < 1:
        steps[-2:-2] = [
            dict(type="RandomResizedCrop", area_range=(recipe.zoom, 1.0), aspect_ratio_range=(0.9, 1.1)),
            dict(type="Resize", scale=(recipe.side, recipe.side), keep_ratio=False),
        ]
    return steps


def full_config(recipe: Recipe, classes: Sequence[str], folder: str, lists: dict[str, str]) -> dict[str, Any]:
    """Return a whole MMAction2 config; `tools/train.py` of MMAction2 also runs it.

    Args:
        recipe: model and schedule.
        classes: names, in the order of the logits.
        folder: of the videos.
        lists: `train` and `held_out` -> a file with a line `path number` per video.
    """
    pipelines = {"train": train_pipeline(recipe), "held_out": test_pipeline(recipe)}
    loaders = {
        name: dict(
            batch_size=recipe.batch,
            num_workers=0,
            sampler=dict(type="DefaultSampler", shuffle=name == "train"),
            dataset=dict(
                type="VideoDataset",
                ann_file=lists[name],
                data_prefix=dict(video=folder),
                pipeline=pipelines[name],
                test_mode=name != "train",
            ),
        )
        for name in pipelines
    }
    metric = dict(type="AccMetric", metric_list=("top_k_accuracy", "mean_class_accuracy"))
    return dict(
        default_scope="mmaction",
        model=MODELS[recipe.architecture](recipe.frames, len(classes)),
        dataset_meta=dict(classes=list(classes)),
        train_pipeline=pipelines["train"],
        test_pipeline=pipelines["held_out"],
        train_dataloader=loaders["train"],
        val_dataloader=loaders["held_out"],
        val_evaluator=metric,
        train_cfg=dict(type="EpochBasedTrainLoop", max_epochs=recipe.epochs, val_interval=max(recipe.epochs // 4, 1)),
        val_cfg=dict(type="ValLoop"),
        optim_wrapper=dict(
            optimizer=dict(type="AdamW", lr=recipe.rate, weight_decay=recipe.weight_decay),
            paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
            clip_grad=dict(max_norm=5.0),
        ),
        param_scheduler=_schedule(recipe.epochs),
        default_hooks=dict(
            timer=dict(type="IterTimerHook"),
            logger=dict(type="LoggerHook", interval=20),
            param_scheduler=dict(type="ParamSchedulerHook"),
            checkpoint=None,
            sampler_seed=dict(type="DistSamplerSeedHook"),
        ),
        randomness=dict(seed=recipe.seed),
        env_cfg=dict(mp_cfg=dict(mp_start_method="fork", opencv_num_threads=1)),
        recipe=asdict(recipe),
    )


def _schedule(epochs: int) -> list[dict[str, Any]]:
    """Return a warm-up over a tenth of the epochs (none if there are fewer than 10), then a cosine down to zero."""
    warm_up = epochs // 10
    rise = dict(type="LinearLR", start_factor=0.1, by_epoch=True, end=warm_up, convert_to_iter_based=True)
    fall = dict(
        type="CosineAnnealingLR", by_epoch=True, begin=warm_up, end=epochs, eta_min=0.0, convert_to_iter_based=True
    )
    return [rise, fall] if warm_up else [fall]

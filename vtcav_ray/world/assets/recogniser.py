# ruff: noqa: C408 (MMAction2's configs are written with dict)
# The planted world's recogniser, in MMAction2's config format: a small Video Swin on clips of 16 x 64 x 64.
# Its weights are recogniser.pth, its classes recogniser_labels.txt (a line each, in the order of the logits).
default_scope = "mmaction"

model = dict(
    type="Recognizer3D",
    backbone=dict(
        type="SwinTransformer3D",
        arch=dict(embed_dims=32, depths=[2, 2, 2, 1], num_heads=[2, 4, 8, 8]),
        pretrained=None,
        pretrained2d=False,
        patch_size=(2, 4, 4),
        # All of time (8 steps after the patches) in one window: with 4, the sign of a motion was not learnt.
        window_size=(8, 4, 4),
        mlp_ratio=4.0,
        qkv_bias=True,
        qk_scale=None,
        drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.0,
        patch_norm=True,
    ),
    data_preprocessor=dict(
        type="ActionDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        format_shape="NCTHW",
    ),
    cls_head=dict(
        type="I3DHead",
        in_channels=256,
        num_classes=4,
        spatial_type="avg",
        dropout_ratio=0.0,
        average_clips="prob",
    ),
)

label_file = "recogniser_labels.txt"

test_pipeline = [
    dict(type="DecordInit"),
    dict(type="SampleFrames", clip_len=16, frame_interval=1, num_clips=1, test_mode=True),
    dict(type="DecordDecode"),
    dict(type="Resize", scale=(-1, 64)),
    dict(type="CenterCrop", crop_size=64),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="PackActionInputs"),
]

# ruff: noqa: C408 (MMAction2's configs are written with dict)
# MMAction2's smallest ResNet3d that distinguishes all of the worlds' factors: clips of 8 x 32 x 32, 2 classes.
default_scope = "mmaction"

model = dict(
    type="Recognizer3D",
    backbone=dict(
        type="ResNet3d",
        depth=18,
        pretrained=None,
        pretrained2d=False,
        base_channels=8,
        num_stages=3,
        dilations=(1, 1, 1),
        out_indices=(2,),
        stage_blocks=(1, 1, 2),
        conv1_kernel=(3, 5, 5),
        conv1_stride_s=2,
        with_pool1=False,
        with_pool2=False,
        spatial_strides=(2, 2, 1),
        temporal_strides=(1, 2, 1),
        inflate=(1, 1, 1),
        zero_init_residual=False,
    ),
    data_preprocessor=dict(
        type="ActionDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        format_shape="NCTHW",
    ),
    cls_head=dict(type="I3DHead", in_channels=32, num_classes=2, spatial_type="avg", dropout_ratio=0.0),
)

test_pipeline = [
    dict(type="DecordInit"),
    dict(type="SampleFrames", clip_len=8, frame_interval=1, num_clips=1, test_mode=True),
    dict(type="DecordDecode"),
    dict(type="CenterCrop", crop_size=32),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="PackActionInputs"),
]

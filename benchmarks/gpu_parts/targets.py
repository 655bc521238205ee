"""The targets of the figures."""

from __future__ import annotations

from gpu_parts.part import Target

STAGE_OF_MODEL_LOOP = Target(
    0.9, speed=True
)  # clips a second of the whole stage, of the model loop's on the same device
OVER_MMACTION = Target(1.8, speed=True)  # times MMAction2's own code, forward and backward
OF_MATMUL = Target(0.5, speed=True)  # share of the measured rate of a large matrix product, in bf16
OVER_TRACK = Target(4.0, speed=True)  # times the frames per second of Ultralytics' `track()` on the same device
CAVS_OVER_CPU = Target(5.0, speed=True)  # times the same machine's cores

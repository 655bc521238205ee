"""Project all of Kinetics on 1, 8 and 64 GPUs: `vtcav plan` with given seconds per video and per clip.

`vtcav_ray.planning.estimate` computes worker seconds, device hours and bytes. This file adds the wall time on G GPUs:

    hours of a stage = worker seconds / (actors at work x efficiency) / 3600
    actors at work   = how many `resources` fit on G GPUs and CORES_A_GPU x G cores, at most the number of shards

No GPU was available. So GPU seconds are operations divided by an assumed rate; CPU seconds are measured (each with its
source in `ASSUMED`). The efficiency was measured with 8 simulated nodes, including actor startup, and is used for 64 as
well: compare the shards per second that the driver would then hand out with the measured ceiling.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
from threadpoolctl import threadpool_limits

from vtcav_ray.cavs.stage import BLOCK_CAVS
from vtcav_ray.config import Config
from vtcav_ray.config.loading import load_config
from vtcav_ray.planning.counts import classes_of
from vtcav_ray.planning.estimate import Plan, estimate
from vtcav_ray.planning.sample import Sample, Timed
from vtcav_ray.runs.stage import shard_size
from vtcav_ray.scores.stage import BLOCK_CLASSES
from vtcav_ray.stages import STAGES
from vtcav_ray.tables import VIDEOS

CORPORA = {"Kinetics-400, train and val": (260_000, 400), "Kinetics-700, train and val": (650_000, 700)}
GPUS = (1, 8, 64)
CORES_A_GPU = 8
ASSUMED: dict[str, tuple[float, str]] = {
    "gpu_operations_per_second": (0.2 * 312e12, "a fifth of an A100's 312e12 in bfloat16: an assumption, not measured"),
    "detector_operations_a_frame": (8.7e9, "YOLOv8n at 640, Ultralytics' model table"),
    "frames_a_video": (150.0, "10 s at 30 frames a second, every second frame (configs/kinetics.yaml)"),
    "tracks_cpu_seconds_a_video": (
        1.5,
        "measured, one thread, two Kinetics clips (340x256, 480x360), a network of next to no cost: 1.7, 1.2",
    ),
    "recogniser_operations_a_clip": (
        352e9,
        "Swin-T, 32x224x224: 88e9 multiply-adds (its paper), two operations each, as much again for backward",
    ),
    "stored_clip_decode_cpu_seconds": (0.076, "measured, RESULTS.md, lossless WebP, 32 frames of 224 pixels"),
    "cut_cpu_seconds_a_clip": (1.1, "measured: 0.9 to decode a video, 0.2 to encode a clip (RESULTS.md)"),
    "tracks_bytes_a_video": (12e3, "150 frames of 3 tracks, 24 bytes a box"),
    "clip_bytes": (1.5e6, "32 x 224 x 224 x 3 at 31.6 % (RESULTS.md); a still clip takes a thirtieth"),
    "video_bytes": (0.6e6, "two Kinetics clips of 340x256 and 480x360"),
}
DIMS = (192, 384, 768, 768)  # Swin-T, `mean`


def projection(measured: dict[str, Any]) -> dict[str, Any]:
    """Return wall hours, device hours and bytes of each corpus, with every step of the arithmetic.

    Args:
        measured: `results/scaling.json`, whose part `nodes` gives the efficiency and the driver's ceiling.
    """
    nodes = measured["nodes"]
    efficiency = nodes["runs"][-1]["efficiency"]
    ceiling = nodes.get("without_sleep", {}).get("shards_per_second_steady")  # None: not measured
    config = load_config(str(Path(__file__).parents[1] / "configs" / "kinetics.yaml"), _overrides())
    out: dict[str, Any] = {
        "assumed": {name: {"value": value, "source": source} for name, (value, source) in ASSUMED.items()},
        "resources": {name: getattr(config.resources, name).model_dump() for name in ("detect", "extract", "cut")},
        "cores_a_gpu": CORES_A_GPU,
        "efficiency": efficiency,
        "driver_ceiling_shards_per_second": ceiling,
        "corpora": {},
    }
    for name, (videos, classes) in CORPORA.items():
        plan, tasks = _plan(config, videos, classes)
        by_gpus = {str(gpus): _clock(config, plan, tasks, gpus, efficiency if gpus > 1 else 1.0) for gpus in GPUS}
        out["corpora"][name] = {
            "videos": videos,
            "clips_at_most": plan.clips.high,
            "worker_seconds": {stage: round(s.estimate, 1) for stage, s in plan.worker_seconds.items()},
            "shards": tasks,
            "gpu_hours_held": round(plan.gpu_hours.estimate, 1),
            "cpu_hours_held": round(plan.cpu_hours.estimate, 1),
            "stored_GB": round(plan.bytes.estimate / 1e9, 1),
            "on_gpus": by_gpus,
        }
    print(markdown(out))
    return out


def _overrides() -> list[str]:
    return [
        "videos.uri=kinetics",
        "resources.detect={cpus: 4, gpus: 0.5}",
        f"resources.extract={{cpus: {CORES_A_GPU}, gpus: 1}}",
    ]


def _plan(config: Config, videos: int, classes: int) -> tuple[Plan, dict[str, int]]:
    a = {name: value for name, (value, _) in ASSUMED.items()}
    detect, extract = config.resources.detect, config.resources.extract
    # An actor decodes while its detector computes, so the sum of both is an upper bound.
    track = (
        a["frames_a_video"] * a["detector_operations_a_frame"] / a["gpu_operations_per_second"] / detect.gpus
        + a["tracks_cpu_seconds_a_video"] / detect.cpus
    )
    a_clip = (
        a["recogniser_operations_a_clip"] / a["gpu_operations_per_second"] / extract.gpus
        + a["stored_clip_decode_cpu_seconds"] / extract.cpus
    )
    sample = Sample(
        1,
        tracks=Timed([track], [1], int(a["tracks_bytes_a_video"])),
        clips=Timed([a["cut_cpu_seconds_a_clip"]], [1], int(a["clip_bytes"])),
        activations=Timed([a_clip], [1], 4 * sum(DIMS)),
        dims=DIMS,
    )
    table = pa.table(
        {
            "video_id": [f"v{i}" for i in range(videos)],
            "label": [f"class {i % classes}" for i in range(videos)],
        }
    )
    blank = {field.name: pa.nulls(videos, field.type) for field in VIDEOS}
    table = pa.table(blank | {name: table[name] for name in table.column_names})
    with threadpool_limits(1):  # the statistics are timed in processor seconds, which would include waiting threads
        plan = estimate(config, table, sample, None, {})
    layers = len(config.activations.layers)
    clips = plan.clips.high
    tasks = {
        "tracks": math.ceil(videos / shard_size(videos, config.shard_videos)),
        "clips": math.ceil(clips / shard_size(int(clips))),
        "activations": math.ceil(clips / shard_size(int(clips))),
        "cavs": layers * math.ceil(plan.cavs / layers / BLOCK_CAVS),
        # shards of layers, and of families, each of which has far more cells than a shard needs
        "scores": layers * math.ceil(classes / BLOCK_CLASSES) + plan.cells // (layers * classes),
    }
    assert len(classes_of(config, table, None)) == classes, "every class has its videos"
    return plan, tasks


def _clock(config: Config, plan: Plan, tasks: dict[str, int], gpus: int, efficiency: float) -> dict[str, Any]:
    cores = CORES_A_GPU * gpus
    hours, actors = {}, {}
    for stage, section in ((stage.name, stage.resources) for stage in STAGES if stage.resources is not None):
        held = getattr(config.resources, section)
        room = cores / held.cpus if not held.gpus else min(cores / held.cpus, gpus / held.gpus)
        actors[stage] = max(1, min(int(room), tasks[stage]))
        hours[stage] = plan.worker_seconds[stage].estimate / (actors[stage] * efficiency) / 3600
    tracking = max(hours["tracks"] * 3600, 1e-9)
    return {
        "hours": {name: round(value, 3) for name, value in hours.items()},
        "hours_in_all": round(sum(hours.values()), 2),
        "actors": actors,
        "tracking_shards_per_second": round(tasks["tracks"] / tracking, 2),
        "tracking_reads_MB_per_second": round(plan.videos * ASSUMED["video_bytes"][0] / tracking / 1e6),
    }


def markdown(found: dict[str, Any]) -> str:
    """Format the table of RESULTS.md."""
    lines = [
        "| corpus | GPUs | hours: tracks | clips | activations | cavs | scores | in all | tracks: shards/s | MB/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, corpus in found["corpora"].items():
        for gpus, at in corpus["on_gpus"].items():
            cells = [f"{at['hours'][stage]:.2f}" for stage in ("tracks", "clips", "activations", "cavs", "scores")]
            rates = [str(at["tracking_shards_per_second"]), str(at["tracking_reads_MB_per_second"])]
            lines.append(f"| {' | '.join([name, gpus, *cells, str(at['hours_in_all']), *rates])} |")
    return "\n".join(lines)

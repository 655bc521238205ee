"""Report finished shards: Ray metrics, which Prometheus reads, and log records.

    ray_vtcav_videos_total{stage}                videos that a stage has processed
    ray_vtcav_clips_total{stage}                 clips
    ray_vtcav_failures_total{stage, kind}        inputs that could not be used
    ray_vtcav_shards_total{stage}
    ray_vtcav_stage_seconds_total{stage}         total seconds of all actors
    ray_vtcav_shard_seconds_bucket{stage, le}    histogram of seconds per shard
    ray_vtcav_batch_occupancy{stage}             filled share of the model's batches, newest shard
    ray_vtcav_gpu_memory_bytes{stage}            peak that torch has allocated in the actor's process

Ray adds more labels (node, session, component). A metric is created once per process, at its first use.
"""

from __future__ import annotations

import functools
import logging
import sys
from typing import Any

import pyarrow as pa

from vtcav_ray.store.commits import ShardOutput

logger = logging.getLogger(__name__)

SHARD_SECONDS = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000]


@functools.cache
def _metrics() -> dict[str, Any]:
    from ray.util.metrics import Counter, Gauge, Histogram

    by_stage = ("stage",)
    return {
        "videos": Counter("vtcav_videos", "Videos that a stage has processed.", by_stage),
        "clips": Counter("vtcav_clips", "Clips that a stage has processed.", by_stage),
        "failures": Counter("vtcav_failures", "Inputs that could not be used.", ("stage", "kind")),
        "shards": Counter("vtcav_shards", "Shards that are committed.", by_stage),
        "seconds": Counter("vtcav_stage_seconds", "Total seconds of all actors of a stage.", by_stage),
        "shard_seconds": Histogram("vtcav_shard_seconds", "Seconds per shard.", SHARD_SECONDS, by_stage),
        "occupancy": Gauge("vtcav_batch_occupancy", "Filled share of the model's batches, in [0, 1].", by_stage),
        "gpu_memory": Gauge("vtcav_gpu_memory_bytes", "Peak of GPU memory that torch has allocated.", by_stage),
    }


def shard_done(stage: str, shard: str, rows: pa.Table, output: ShardOutput, seconds: float) -> None:
    """Count a committed shard, and log each of its failures once.

    Args:
        rows: the shard's rows; videos are counted by their `video_id`.
        output: what was committed. Its metrics `clips`, `batch_items` and `batch_slots` are used.
        seconds: from the start of the shard to its commit.
    """
    metrics, tags = _metrics(), {"stage": stage}
    videos = len(rows["video_id"].unique()) if "video_id" in rows.column_names else 0
    for name, count in (("videos", videos), ("clips", output.metrics.get("clips", 0)), ("shards", 1)):
        if count:
            metrics[name].inc(count, tags)
    if seconds > 0:
        metrics["seconds"].inc(seconds, tags)
    metrics["shard_seconds"].observe(seconds, tags)
    if slots := output.metrics.get("batch_slots", 0):
        metrics["occupancy"].set(output.metrics.get("batch_items", 0) / slots, tags)
    if (memory := _gpu_memory()) is not None:
        metrics["gpu_memory"].set(memory, tags)
    for failure in output.failures:
        kind = failure.error_kind
        metrics["failures"].inc(1, tags | {"kind": kind})
        about = {"video": failure.video_id or failure.uri, "clip": failure.clip_id, "kind": kind}
        logger.warning("%s", failure.message, extra={"shard": shard, **about})
    logger.info("shard committed", extra={"shard": shard, "seconds": round(seconds, 3)})


def _gpu_memory() -> int | None:
    """Return the peak of GPU memory in bytes; None if the worker uses no GPU (torch may not be imported)."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return int(torch.cuda.max_memory_allocated())

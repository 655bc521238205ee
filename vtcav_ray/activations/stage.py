"""Stage `activations`: one forward pass for every clip, and one backward pass for every class example and class.

A shard is a shard of the `clips` table. Rows are carried over from an earlier output video by video. Each layer has
separate files, so one layer can be read without the others.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray import stages
from vtcav_ray.activations.clip_tables import ClipExtractor, Row, extractor_of
from vtcav_ray.activations.reference import reference_classes
from vtcav_ray.clips.stage import CONTENTS
from vtcav_ray.config import ClipsConfig, Config
from vtcav_ray.errors import InputError
from vtcav_ray.registry import PROJECTIONS, added_code
from vtcav_ray.runs.devices import device_of_actor
from vtcav_ray.runs.stage import Context, Shard, Stage, Work
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.video.codec import decode_clip

if TYPE_CHECKING:
    from vtcav_ray.models.preprocess import Sampling

CLASSES = "classes"  # a column of the shards: the run's classes for a video of the reference set, else null
BATCH_SIZE_FILE = "batch_size.json"
CLIP_COLUMNS = ("clip_id", "set", "name", "kind", "video_id", "label", "encoding", "encoded")


def _prepare(context: Context) -> Work:
    from vtcav_ray.models import describe

    # One row per video. It has the digest of the video's clips, so equal rows mean equal work (see
    # vtcav_ray.runs.carry).
    # It also names the classes to differentiate there besides the clips' own.
    differentiate = _reference_classes(context)
    shards = [
        Shard(
            name,
            part.add_column(0, "shard", pa.array([name] * part.num_rows)).append_column(
                CLASSES, pa.array([differentiate.get(v) for v in part["video_id"].to_pylist()], pa.list_(pa.string()))
            ),
        )
        for name, part in context.input("clips").iter_tables(CONTENTS)
        if part.num_rows
    ]
    description = describe(context.config.model, seed=context.config.seed)
    warnings = []
    if description.untrained:
        warnings.append("The model is UNTRAINED: its weights are random, and so is what the scores say of it.")
    warnings += sampled_otherwise(context.config.clips, description.sampling)
    return Work(
        shards=shards,
        make_worker=functools.partial(
            ExtractWorker,
            context.config,
            context.input("clips"),
            stage_folder(context.run, STAGE.name, STAGE.key(context)).folder,
        ),
        resources=context.config.resources.extract,
        warnings=warnings,
        notes={"model": description.tag, "untrained": description.untrained},
    )


def _reference_classes(context: Context) -> dict[str, list[str]]:
    """Map each video of the reference set to the classes of the run."""
    config = context.config
    clips = context.input("clips").read("clips", columns=["video_id", "set", "name"])
    assert clips is not None, "the stage `clips` is complete"
    examples = clips.filter(pc.equal(clips["set"], "class"))
    class_of = dict(zip(examples["video_id"].to_pylist(), examples["name"].to_pylist(), strict=True))
    size = config.clips.per_class if config.activations.reference is None else config.activations.reference
    return reference_classes(class_of, size, config.seed)


def sampled_otherwise(clips: ClipsConfig, sampling: Sampling | None) -> list[str]:
    """Return a warning if the clips sample frames differently from the model's own test pipeline."""
    if sampling is None:
        return []
    interval = sampling.frame_interval
    if clips.frames == sampling.frames and interval in (None, clips.interval):
        return []
    apart = "spread over the video" if interval is None else f"{interval} apart"
    return [
        f"The model's config samples {sampling.frames} frames, {apart}; the clips have {clips.frames}, "
        f"{clips.interval} apart. Set clips.frames and clips.interval to the model's, unless another speed is meant."
    ]


def _ingredients(context: Context) -> dict[str, Any]:
    config = context.config
    if "model_digest" not in context.memo:  # hashes the checkpoint's bytes
        from vtcav_ray.models import model_digest

        context.memo["model_digest"] = model_digest(config.model, seed=config.seed)
    return {
        **added_code({PROJECTIONS: config.activations.projection_names}),
        "model": {"framework": config.model.framework, "digest": context.memo["model_digest"]},
        "activations": config.activations.model_dump(mode="json"),
        "batch_size": config.resources.extract.batch_size,
        "classes": config.clips.classes if config.activations.classes == "listed" else None,
    }


STAGE = Stage(stages.ACTIVATIONS, version=8, ingredients=_ingredients, prepare=_prepare)


class ExtractWorker:
    """The worker that runs the recogniser over the clips of one shard.

    Args:
        config: the whole config.
        clips: the stage with the shard's clips.
        output: the stage's own folder, through which actors agree on the batch size found by trial.
    """

    def __init__(self, config: Config, clips: StageFolder, output: Folder) -> None:
        from vtcav_ray.models import load_recogniser

        self.clips = clips
        self.output = output
        self.config = config
        self.recogniser = load_recogniser(config.model, device_of_actor(config.resources.extract), seed=config.seed)
        threads = max(1, round(config.resources.extract.cpus))
        self.extractor = extractor_of(config.activations, self.recogniser, threads=threads)
        wanted = config.resources.extract.batch_size
        self.batch_size_known = wanted != "auto" and (wanted is not None or self.recogniser.device.type == "cpu")
        if isinstance(wanted, int):
            self.extractor.batch_size = wanted
        self._tables_of = ClipExtractor(self.recogniser, self.extractor, config.activations, config.clips.classes)

    def __call__(self, rows: pa.Table) -> ShardOutput:
        table = self.clips.read_file(f"clips/{rows['shard'][0].as_py()}.parquet", CLIP_COLUMNS)
        if "video_id" in rows.column_names:  # only part of the shard, if the rest is carried over
            table = table.filter(pc.is_in(table["video_id"], rows["video_id"].combine_chunks()))
        if not self.batch_size_known:
            self._agree_on_batch_size(table)
        everywhere: dict[str, list[str] | None] = {}  # video of the reference set -> classes
        if CLASSES in rows.column_names:
            everywhere = dict(zip(rows["video_id"].to_pylist(), rows[CLASSES].to_pylist(), strict=True))
        made = self._tables_of(table.to_pylist(), everywhere, _decoded)
        return ShardOutput(made.tables, made.failures, made.figures)

    def _agree_on_batch_size(self, clips: pa.Table) -> None:
        """Find the batch size by trial on the first clip that decodes, unless another actor or an earlier run did.

        A table must be made with one batch size, since another would change its last digits.
        """
        if self.output.exists(BATCH_SIZE_FILE):
            self.extractor.batch_size = int(self.output.read_json(BATCH_SIZE_FILE)["views"])
            self.batch_size_known = True
            return
        from vtcav_ray.activations.batch_size import memory_of

        resources = self.config.resources.extract
        memory = memory_of(
            self.recogniser.device, cpus=resources.cpus, gpus=resources.gpus, memory_gb=resources.memory_gb
        )
        for encoding, encoded in zip(clips["encoding"].to_pylist(), clips["encoded"].to_pylist(), strict=True):
            try:
                clip = decode_clip(encoding, encoded)
            except InputError:
                continue  # it becomes a failure when the shard is extracted
            self.extractor.choose_batch_size(clip, gradients=True, memory=memory)
            break
        else:
            return  # no clip to try it on: the next shard will try
        found = json.dumps({"views": self.extractor.batch_size}).encode()
        self.extractor.batch_size = int(json.loads(self.output.write_once(BATCH_SIZE_FILE, found))["views"])
        self.batch_size_known = True


def _decoded(row: Row) -> np.ndarray:
    return decode_clip(row["encoding"], row["encoded"])

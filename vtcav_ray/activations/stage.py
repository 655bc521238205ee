"""Stage `activations`: one forward pass for every clip, and one backward pass for every class example and class.

A shard is a shard of the `clips` table. Rows are carried over from an earlier output video by video. Each layer has
separate files, so one layer can be read without the others.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray import stages, tables
from vtcav_ray.activations.reference import reference_videos
from vtcav_ray.clips.stage import CONTENTS
from vtcav_ray.config import ClipsConfig, Config
from vtcav_ray.errors import ConfigError, InputError
from vtcav_ray.registry import PROJECTIONS, added_code
from vtcav_ray.rows import Failure
from vtcav_ray.runs.devices import device_of_actor
from vtcav_ray.runs.stage import Context, Shard, Stage, Work
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.vectors import vector_array
from vtcav_ray.text.name_lists import NameIndex
from vtcav_ray.video.codec import decode_clip

if TYPE_CHECKING:
    from vtcav_ray.activations.extract import Extractor
    from vtcav_ray.activations.extraction import Extraction
    from vtcav_ray.models import Recogniser
    from vtcav_ray.models.preprocess import Sampling

CLASSES = "classes"  # a column of the shards: the run's classes for a video of the reference set, else null
BATCH_SIZE = 8  # views per model call on a CPU, if the config gives none
BATCH_SIZE_FILE = "batch_size.json"
Row = dict[str, Any]
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
    names = sorted(set(class_of.values()))
    size = config.clips.per_class if config.activations.reference is None else config.activations.reference
    return dict.fromkeys(reference_videos(class_of, size, config.seed), names)


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
        settings = config.activations
        self.dtype = np.dtype(settings.dtype)
        self.recogniser = load_recogniser(config.model, device_of_actor(config.resources.extract), seed=config.seed)
        self.tag = self.recogniser.description.tag
        self.extractor = extractor_of(config, self.recogniser, threads=max(1, round(config.resources.extract.cpus)))
        wanted = config.resources.extract.batch_size
        self.batch_size_known = wanted != "auto" and (wanted is not None or self.recogniser.device.type == "cpu")
        if isinstance(wanted, int):
            self.extractor.batch_size = wanted
        self.class_index = NameIndex(self.recogniser.class_names)
        listed = config.clips.classes or () if settings.classes == "listed" else ()
        if unknown := [name for name in listed if name not in self.class_index]:
            raise ConfigError(
                f"`clips.classes`: the model has no class {unknown[0]!r}. Its {len(self.class_index.names)} names "
                "come from the checkpoint; `model.labels` can give others."
            )
        self.top = int(settings.classes.removeprefix("top-")) if settings.classes.startswith("top-") else 0

    def __call__(self, rows: pa.Table) -> ShardOutput:
        table = self.clips.read_file(f"clips/{rows['shard'][0].as_py()}.parquet", CLIP_COLUMNS)
        if "video_id" in rows.column_names:  # only part of the shard, if the rest is carried over
            table = table.filter(pc.is_in(table["video_id"], rows["video_id"].combine_chunks()))
        if not self.batch_size_known:
            self._agree_on_batch_size(table)
        failures: list[Failure] = []
        everywhere: dict[str, list[str] | None] = {}  # video of the reference set -> classes
        if CLASSES in rows.column_names:
            everywhere = dict(zip(rows["video_id"].to_pylist(), rows[CLASSES].to_pylist(), strict=True))
        reference, examples, others = _Clips(), _Clips(), _Clips()
        for row in table.to_pylist():
            names = everywhere.get(row["video_id"]) or ()
            row["reference"] = bool(names) and row["set"] == "class"
            if row["set"] != "class":
                others.rows.append(row)
                continue
            try:
                of = reference if row["reference"] else examples
                of.classes.append(self._classes_of(row, names))
                of.rows.append(row)
            except InputError as error:
                failures.append(Failure.of_clip(row, error))
        # Separate calls: only class examples are differentiated, and a call makes as many backward passes for every
        # clip as the clip with the most classes needs.
        groups = (reference, examples, others)
        batch_size = self.extractor.batch_size
        parts = self._extract(groups)
        if self.extractor.batch_size != batch_size:  # it did not fit: a table must be made with one batch size
            parts = self._extract(groups)
        for clips, found in parts:
            first = {item.clip: InputError("non_finite", item.message) for item in reversed(found.non_finite)}
            first |= found.unreadable
            failures += [Failure.of_clip(clips[i], first[i]) for i in sorted(first)]
        backward = sum(len(found.gradient_clips) for _, found in parts)
        sizes = [len(group.rows) for group in groups]
        figures = {"clips": sum(sizes), "gradients": backward}
        made = self._tables(parts, table["clip_id"].to_pylist())
        return ShardOutput(made, failures, figures | self._batches(*sizes))

    def _extract(self, groups: Sequence[_Clips]) -> list[tuple[list[Row], Extraction]]:
        parts = []
        for group in groups:
            if group.rows:
                found = self.extractor.extract(_Stored(group.rows), group.classes or None, top=self.top)
                parts.append((group.rows, found.that_fits(self.dtype)))
        return parts

    def _batches(self, *clips: int) -> dict[str, float]:
        """Return how full the model's batches were: clips, and slots for clips, of one `extract` call each."""
        room = self.extractor.clips_a_batch
        return {"batch_items": sum(clips), "batch_slots": sum(-(-count // room) * room for count in clips)}

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

    def _classes_of(self, row: Row, everywhere: Sequence[str]) -> list[int]:
        """Return the classes to differentiate for a class example, its own first.

        Args:
            row: of the table `clips`.
            everywhere: the classes of the run if the clip is in the reference set, else none.
        """
        label = row["name"]  # of its labels, the class that it is an example of
        if label not in self.class_index:
            near = self.class_index.nearest(label)
            known = f"the nearest is {near!r}" if near else f"{', '.join(self.recogniser.class_names[:4])}, ..."
            raise InputError(
                "label",
                f"the model has no class {label!r}; it has {len(self.recogniser.class_names)}: {known}. "
                "Rename the label, or map it in videos.labels.",
            )
        wanted = [label, *everywhere]
        if self.config.activations.classes == "listed":
            wanted += self.config.clips.classes or self.recogniser.class_names
        places = (self.class_index.place(name) for name in wanted)
        return list(dict.fromkeys(place for place in places if place is not None))

    def _tables(self, parts: list[tuple[list[Row], Extraction]], order: list[str]) -> dict[str, pa.Table]:
        """Make one table of answers, and one of activations and one of gradients per layer.

        Clips with non-finite values are left out.

        Rows are in the order of the clips, across both calls. Rows carried over are placed by this order.
        """
        place = {clip: i for i, clip in enumerate(order)}
        tables_of: dict[str, pa.Table] = {}

        def put(name: str, pieces: list[pa.Table]) -> None:
            if pieces := [piece for piece in pieces if piece.num_rows]:
                table = pa.concat_tables(pieces)
                places = [place[clip] for clip in table["clip_id"].to_pylist()]
                rank = sorted(range(len(places)), key=places.__getitem__)  # stable: a clip's classes stay in order
                tables_of[name] = table.take(pa.array(rank, pa.int64()))

        readable = [(clips, found) for clips, found in parts if found.views]  # 0: none was readable
        put("answers", [self._answers(clips, found) for clips, found in readable])
        for layer in self.config.activations.layers:
            for name, make in (("activations", self._activations), ("gradients", self._gradients)):
                put(f"{name}/layer={layer}", [make(clips, found, layer) for clips, found in readable])
        return tables_of

    def _answers(self, clips: list[Row], found: Extraction) -> pa.Table:
        good = [i for i in range(len(clips)) if i not in found.bad_clips]
        of = [clips[i] for i in good]
        names = list(self.recogniser.class_names)
        gains = np.stack([found.gains[layer][good] for layer in self.config.activations.layers], axis=1)
        return pa.table(
            {
                **{name: [row[name] for row in of] for name in ("clip_id", "set", "name", "kind", "video_id", "label")},
                "predicted": [names[int(k)] for k in found.predicted[good]],
                "logits": list(found.logits[good].astype(np.float32)),
                "gains": list(gains.astype(np.float32)),
                "views": [found.views] * len(of),
                "model": [self.tag] * len(of),
            },
            schema=tables.ANSWERS.with_metadata({tables.CLASSES: json.dumps(names)}),
        )

    def _activations(self, clips: list[Row], found: Extraction, layer: str) -> pa.Table:
        good = [i for i in range(len(clips)) if i not in found.bad_clips]
        of = [clips[i] for i in good]
        vectors = found.activations[layer][good]
        return pa.table(
            {
                **{name: [row[name] for row in of] for name in ("clip_id", "set", "name", "kind", "video_id")},
                "layer": [layer] * len(of),
                "views": [found.views] * len(of),
                "model": [self.tag] * len(of),
                "vector": vector_array(vectors.astype(self.dtype)),
            },
            schema=tables.activations(vectors.shape[1], self.dtype.name),
        )

    def _gradients(self, clips: list[Row], found: Extraction, layer: str) -> pa.Table:
        rows = [g for g, clip in enumerate(found.gradient_clips) if int(clip) not in found.bad_clips]
        names = self.recogniser.class_names
        of = [clips[int(found.gradient_clips[g])] for g in rows]
        d = found.gradients[layer].shape[1]
        return pa.table(
            {
                "clip_id": [row["clip_id"] for row in of],
                "video_id": [row["video_id"] for row in of],
                "class": [names[int(found.gradient_classes[g])] for g in rows],
                "layer": [layer] * len(rows),
                "target": [self.config.activations.target] * len(rows),
                "value": found.gradient_values[rows].astype(np.float32),
                "predicted": [names[int(found.predicted[int(found.gradient_clips[g])])] for g in rows],
                "reference": [row["reference"] for row in of],
                "gain": found.gains[layer][found.gradient_clips[rows]],
                "margin": found.gradient_margins[rows],
                "views": [found.views] * len(rows),
                "model": [self.tag] * len(rows),
                "vector": vector_array(found.gradients[layer][rows]),
            },
            schema=tables.gradients(d),
        )


def extractor_of(config: Config, recogniser: Recogniser, *, threads: int) -> Extractor:
    """Return the extractor of a run's activations and gradients. `threads`: number that read clips ahead."""
    from vtcav_ray.activations.extract import Extractor

    settings = config.activations
    return Extractor(
        recogniser,
        settings.layers,
        settings.projection,
        sketch_seed=settings.sketch_seed,
        target=settings.target,
        views=settings.views,
        precision=settings.precision,
        batch_size=BATCH_SIZE,
        compile=settings.compile,
        threads=threads,
    )


@dataclass
class _Clips:
    """Rows of the table `clips` for one call of the extractor, and the classes to differentiate at each."""

    rows: list[Row] = field(default_factory=list)
    classes: list[list[int]] = field(default_factory=list)


class _Stored(Sequence[np.ndarray]):
    """Stored clips, decoded on access."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: Any) -> Any:
        return decode_clip(self.rows[i]["encoding"], self.rows[i]["encoded"])

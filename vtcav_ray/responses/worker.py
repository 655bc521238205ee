"""The worker that puts the pool clips of one shard into the reference clips, at one layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vtcav_ray.config import Config
from vtcav_ray.errors import InputError, StageError
from vtcav_ray.models import load_recogniser
from vtcav_ray.responses.passes import PatchSettings, Reference, Responses, equal_weights, responses
from vtcav_ray.responses.reference import read_reference
from vtcav_ray.rows import Failure, ResponseRow, table_of
from vtcav_ray.runs.devices import device_of_actor
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.text.name_lists import NameIndex
from vtcav_ray.video.codec import decode_clip

BATCH_SIZE = {"cuda": 16}  # views per model call, unless the config sets it; on a CPU 8


@dataclass(frozen=True)
class Shard:
    """The pool clips of a shard; `good`: every response is a number."""

    clips: Sequence[str]
    videos: Sequence[str]
    good: Sequence[bool]

    def with_response(self) -> list[int]:
        return [u for u, fine in enumerate(self.good) if fine]


@dataclass(frozen=True)
class Layer:
    """One layer's pool and reference.

    Attributes:
        row_of: clip id -> row of `vectors_Nd`.
        order: place of each clip of `reference` among the ids of all reference clips, sorted.
        size: number of all reference clips.
        failures: reference clips that could not be decoded.
    """

    name: str
    row_of: Mapping[str, int]
    vectors_Nd: np.ndarray
    reference: Reference
    order: np.ndarray
    size: int
    failures: Sequence[Failure]


class ResponseWorker:
    """The worker that makes the table `responses`. It keeps the recogniser, and one layer's clips.

    Args:
        config: the whole config.
        clips: the stage with the reference clips' frames.
        activations: the stage with the pool's vectors and the reference clips' gradients.
        classes: names of the classes.
        clip_shards: shard of the table `clips` -> reference clips in it.
        limit_reference: see `read_reference`.
    """

    def __init__(
        self,
        config: Config,
        clips: StageFolder,
        activations: StageFolder,
        classes: Sequence[str],
        clip_shards: Mapping[str, Sequence[str]],
        limit_reference: int | None,
    ) -> None:
        self.clips, self.activations, self.classes = clips, activations, tuple(classes)
        self.clip_shards, self.limit, self.seed = clip_shards, limit_reference, config.seed
        self.recogniser = load_recogniser(config.model, device_of_actor(config.resources.extract), seed=config.seed)
        self.tag = self.recogniser.description.tag
        index = NameIndex(self.recogniser.class_names)
        if unknown := [name for name in classes if name not in index]:
            raise StageError(f"The model has no class {unknown[0]!r}, which the run's scores have. Run it again.")
        self.class_indices = [place for name in classes if (place := index.place(name)) is not None]
        given = config.activations
        asked = config.resources.extract.batch_size
        self.settings = PatchSettings(
            projection=given.projection,
            sketch_seed=given.sketch_seed,
            target=given.target,
            views=given.views,
            precision=given.precision,
            batch_size=asked if isinstance(asked, int) else BATCH_SIZE.get(self.recogniser.device.type, 8),
        )
        self._frames: dict[str, np.ndarray | InputError] = {}
        self._kept: Layer | None = None

    def __call__(self, rows: pa.Table) -> ShardOutput:
        layer = rows["layer"][0].as_py()
        if self._kept is None or self._kept.name != layer:
            self._kept = None  # never hold two layers in memory
            self._kept = self._read(layer)
        data = self._kept
        clips, videos = rows["clip_id"].to_pylist(), rows["video_id"].to_pylist()
        vectors_Ud = data.vectors_Nd[[data.row_of[clip] for clip in clips]]
        found = responses(self.recogniser, layer, vectors_Ud, data.reference, self.class_indices, self.settings)
        good = [bool(np.isfinite(row).all()) for row in found.response]
        error = InputError(
            "non_finite", f"NaN or infinity in the logits when this clip is patched into layer `{layer}`"
        )
        failures = [
            Failure.of_clip({"clip_id": clip, "video_id": video}, error)
            for clip, video, fine in zip(clips, videos, good, strict=True)
            if not fine
        ]
        # Every shard leaves out the same reference clips, and one reports them.
        failures += data.failures if rows["reports"][0].as_py() else []
        tables = self._tables(data, Shard(clips, videos, good), found)
        warnings = []
        if found.whole:
            warnings.append(
                f"The part of the network after layer `{layer}` could not be run alone, so every pass ran the whole "
                "network. The results are the same, and the time is longer."
            )
        return ShardOutput(tables, failures, {"clips": sum(good), "passes": found.passes}, warnings)

    def _tables(self, data: Layer, shard: Shard, found: Responses) -> dict[str, pa.Table]:
        """Return the tables of a shard; none if no clip has a response."""
        values_UKV = np.full((len(shard.clips), len(self.classes), data.size), np.nan, np.float32)
        values_UKV[:, :, data.order] = found.at_each.transpose(0, 2, 1)
        rows = [
            ResponseRow(
                clip_id=shard.clips[u],
                video_id=shard.videos[u],
                class_=name,
                layer=data.name,
                responses=values_UKV[u, k],  # type: ignore[arg-type]  # Arrow takes arrays as lists
                model=self.tag,
            )
            for u in shard.with_response()
            for k, name in enumerate(self.classes)
        ]
        return {f"responses/layer={data.name}": table_of(rows, ResponseRow)} if rows else {}

    def _read(self, layer: str) -> Layer:
        pool = self.activations.read("activations", columns=("clip_id", "vector"), layer=layer)
        assert pool is not None, "the shards were made from this table"
        table = read_reference(self.activations, layer, self.limit, self.seed)
        gradients, places = vectors_of(table), {name: k for k, name in enumerate(self.classes)}
        clip_ids = list(dict.fromkeys(table["clip_id"].to_pylist()))
        row_of = {clip: v for v, clip in enumerate(clip_ids)}
        gradients_VKd = np.full((len(clip_ids), len(places), gradients.shape[1]), np.nan, np.float32)
        for i, (clip, name) in enumerate(zip(table["clip_id"].to_pylist(), table["class"].to_pylist(), strict=True)):
            if name in places:
                gradients_VKd[row_of[clip], places[name]] = gradients[i]
        video_of = dict(zip(table["clip_id"].to_pylist(), table["video_id"].to_pylist(), strict=True))
        self._decode(set(clip_ids))
        frames = [self._frames[clip] for clip in clip_ids]
        errors = {clip: one for clip, one in zip(clip_ids, frames, strict=True) if isinstance(one, InputError)}
        used = [v for v, one in enumerate(frames) if not isinstance(one, InputError)]
        if not used:
            raise StageError(f"No reference clip can be decoded; the first: {next(iter(errors.values())).message}")
        return Layer(
            name=layer,
            row_of={clip: i for i, clip in enumerate(pool["clip_id"].to_pylist())},
            vectors_Nd=vectors_of(pool),
            reference=Reference(
                clips=[one for one in frames if not isinstance(one, InputError)],
                weights_V=equal_weights([video_of[clip_ids[v]] for v in used]),
                gradients_VKd=gradients_VKd[used],
            ),
            order=np.searchsorted(sorted(clip_ids), [clip_ids[v] for v in used]),
            size=len(clip_ids),
            failures=[Failure.of_clip({"clip_id": c, "video_id": video_of[c]}, one) for c, one in errors.items()],
        )

    def _decode(self, wanted: set[str]) -> None:
        """Decode the reference clips that are not decoded yet. They are the same at all layers, but for failures."""
        for shard, clips in self.clip_shards.items():
            missing = wanted.intersection(clips) - self._frames.keys()
            if not missing:
                continue
            part = self.clips.read_file(f"clips/{shard}.parquet", ("clip_id", "encoding", "encoded"))
            for row in part.to_pylist():
                if row["clip_id"] in missing:
                    try:
                        self._frames[row["clip_id"]] = decode_clip(row["encoding"], row["encoded"])
                    except InputError as error:
                        self._frames[row["clip_id"]] = error

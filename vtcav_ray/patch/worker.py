"""The worker of the stage `patch`: the responses to the pool clips of one shard at one layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vtcav_ray.clips.usable import AcceptedRows
from vtcav_ray.config import Config
from vtcav_ray.errors import InputError, StageError
from vtcav_ray.models import load_recogniser
from vtcav_ray.patch.plan import read_reference
from vtcav_ray.patch.responses import PatchSettings, Reference, Responses, equal_weights, responses
from vtcav_ray.rows import Failure, PatchedRow, table_of
from vtcav_ray.runs.devices import device_of_actor
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.text.name_lists import NameIndex
from vtcav_ray.video.codec import decode_clip

BATCH_SIZE = {"cuda": 16}  # views per model call, unless the config sets it; on a CPU 8


@dataclass(frozen=True)
class _Layer:
    """One layer's pool and reference.

    Attributes:
        row_of: clip id -> row of `vectors_Nd`.
        failures: reference clips that could not be decoded.
    """

    name: str
    row_of: Mapping[str, int]
    vectors_Nd: np.ndarray
    reference: Reference
    failures: Sequence[Failure]


class PatchWorker:
    """The worker that puts pool clips into the reference clips. It keeps the recogniser, and one layer's clips.

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
        activations: AcceptedRows,
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
        self._kept: _Layer | None = None

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
        table = self._table(layer, clips, videos, found, good)
        warnings = []
        if found.whole:
            warnings.append(
                f"The part of the network after layer `{layer}` could not be run alone, so every pass ran the whole "
                "network. The results are the same, and the time is longer."
            )
        metrics = {"clips": sum(good), "passes": found.passes}
        return ShardOutput({f"patched/layer={layer}": table} if table.num_rows else {}, failures, metrics, warnings)

    def _table(
        self, layer: str, clips: Sequence[str], videos: Sequence[str], found: Responses, good: Sequence[bool]
    ) -> pa.Table:
        assert self._kept is not None, "set by the caller"
        references = len(self._kept.reference.clips)
        rows = [
            PatchedRow(
                clip_id=clips[u],
                video_id=videos[u],
                class_=name,
                layer=layer,
                response=float(found.response[u, k]),
                first_order=float(found.first_order[u, k]),
                references=references,
                model=self.tag,
            )
            for u, fine in enumerate(good)
            if fine
            for k, name in enumerate(self.classes)
        ]
        return table_of(rows, PatchedRow)

    def _read(self, layer: str) -> _Layer:
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
        return _Layer(
            name=layer,
            row_of={clip: i for i, clip in enumerate(pool["clip_id"].to_pylist())},
            vectors_Nd=vectors_of(pool),
            reference=Reference(
                clips=[one for one in frames if not isinstance(one, InputError)],
                weights_V=equal_weights([video_of[clip_ids[v]] for v in used]),
                gradients_VKd=gradients_VKd[used],
            ),
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

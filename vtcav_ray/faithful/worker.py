"""The worker of the stage `faithful`: erase directions, shuffle weights, or split the corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from vtcav_ray.activations.projections import layer_and_projection, make_projection
from vtcav_ray.clips.usable import AcceptedRows
from vtcav_ray.config import Config
from vtcav_ray.errors import InputError, StageError
from vtcav_ray.faithful.effects import RunClips, names_of, read_clips, read_layer, stored_gradients
from vtcav_ray.faithful.erase import ErasedNetwork
from vtcav_ray.faithful.erasing import Example, LayerEraser
from vtcav_ray.faithful.halves import halves
from vtcav_ray.faithful.plan import Chosen, LayerDirections, Vector
from vtcav_ray.faithful.randomised import EncodedClips, Randomised
from vtcav_ray.models import load_recogniser
from vtcav_ray.models.base import Recogniser
from vtcav_ray.models.layers import resolve_layer
from vtcav_ray.rows import ErasureRow, Failure, FiniteChangeRow, HalfRow, RandomisedRow, table_of
from vtcav_ray.runs.devices import device_of_actor
from vtcav_ray.scores.layer_data import ScoreOptions
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.text.name_lists import NameIndex


class FaithfulWorker:
    """The worker. The recogniser is loaded when a shard first needs it.

    Args:
        config: the whole config.
        clips: the stage with the frames.
        activations: the stage, without the clips that are left out.
        chosen: what to examine.
        found: layer -> directions.
        labels: label of each source video.
    """

    def __init__(
        self,
        config: Config,
        clips: StageFolder,
        activations: AcceptedRows,
        chosen: Chosen,
        found: Mapping[str, LayerDirections],
        labels: Mapping[str, str],
    ) -> None:
        self.config, self.clips, self.activations = config, clips, activations
        self.chosen, self.found, self._label_of = chosen, found, labels

    def __call__(self, rows: pa.Table) -> ShardOutput:
        check = rows["check"][0].as_py()
        if check == "halves":
            return ShardOutput({"halves": table_of(self._halves(), HalfRow)})
        if check == "randomised":
            return self._randomised(rows.to_pylist()[0])
        return self._erase(rows)

    @cached_property
    def recogniser(self) -> Recogniser:
        return self._load()

    def _load(self) -> Recogniser:
        config = self.config
        return load_recogniser(config.model, device_of_actor(config.resources.extract), seed=config.seed)

    @cached_property
    def _index(self) -> dict[str, int]:
        index = NameIndex(self.recogniser.class_names)
        found = {name: index.place(name) for name in self.chosen.classes}
        if unknown := [name for name, place in found.items() if place is None]:
            raise StageError(f"The model has no class {unknown[0]!r}, which the run's scores have. Run it again.")
        return {name: place for name, place in found.items() if place is not None}

    @cached_property
    def _run_clips(self) -> RunClips:
        return read_clips(self.activations, self._label_of, self.config)

    @property
    def _options(self) -> ScoreOptions:
        settings = self.config.scores
        return ScoreOptions(settings.bootstrap, settings.permutations, self.config.seed)

    def _erase(self, rows: pa.Table) -> ShardOutput:
        layer = rows["layer"][0].as_py()
        frames, failures = self._decoded(rows)
        gradients = self._gradients(layer, list(frames))
        examples = [
            Example(row["clip_id"], row["video_id"], row["class"], gradients.get(row["clip_id"], {}))
            for row in rows.to_pylist()
            if row["clip_id"] in frames
        ]
        if not examples:
            return ShardOutput({}, failures)
        settings = self.config.activations
        name, spec = layer_and_projection(layer, settings.projection)
        path = resolve_layer(self.recogniser, name)
        network = ErasedNetwork(self.recogniser, path, [frames[one.clip_id] for one in examples], settings.views)
        eraser = LayerEraser(
            network, examples, self._index, settings.target, self.found[layer], self.chosen, layer, self.config.seed
        )
        projection = make_projection(spec, network.shape, settings.sketch_seed)
        erased = [*eraser.single(), *eraser.curves()]
        tables = {
            "erasures": table_of(erased, ErasureRow),
            "finite_changes": table_of(eraser.finite(projection), FiniteChangeRow),
        }
        return ShardOutput(
            {key: table for key, table in tables.items() if table.num_rows}, failures, {"clips": len(examples)}
        )

    def _gradients(self, layer: str, clips: Sequence[str]) -> dict[str, dict[str, Vector]]:
        """Return clip -> class -> the gradient times its gain."""
        table = self.activations.read("gradients", columns=("clip_id", "class", "gain", "vector"), layer=layer)
        assert table is not None, "there are scores of this layer"
        vectors, gains = vectors_of(table), table["gain"].to_pylist()
        found: dict[str, dict[str, Vector]] = {}
        for i, (clip, name) in enumerate(zip(table["clip_id"].to_pylist(), table["class"].to_pylist(), strict=True)):
            if clip in clips:
                found.setdefault(clip, {})[name] = vectors[i] * gains[i]
        return found

    def _decoded(self, rows: pa.Table) -> tuple[dict[str, np.ndarray], list[Failure]]:
        """Return clip -> frames, and the failures of clips that can't be decoded."""
        encoded, found, failures = EncodedClips(self.clips, rows["clip_id"].to_pylist()), {}, []
        for i, row in enumerate(rows.to_pylist()):
            try:
                found[row["clip_id"]] = encoded[i]
            except InputError as error:
                failures.append(Failure.of_clip(row, error))
        return found, failures

    def _randomised(self, row: dict[str, Any]) -> ShardOutput:
        model = self._load()  # its own copy: the weights are shuffled in place
        frames = EncodedClips(self.clips, [*row["reference"], *row["clip_id"]])
        reference = dict(zip(row["reference"], row["reference_videos"], strict=True))
        again = Randomised(self.config, model, self.activations, self.chosen, self._run_clips, self._options)
        rows, bad = again(row["layer"], frames, reference)
        video_of = reference | dict(zip(row["clip_id"], row["videos"], strict=True))
        failures = [Failure.of_clip({"clip_id": c, "video_id": video_of[c]}, error) for c, error in bad.items()]
        tables = {"randomised": table_of(rows, RandomisedRow)} if rows else {}
        return ShardOutput(tables, failures, {"clips": len(frames) - len(bad)})

    def _halves(self) -> list[HalfRow]:
        config = self.config
        names = names_of(self.activations, config.activations.layers[0])
        layers = [
            read_layer(
                self.activations,
                layer,
                stored_gradients(self.activations, layer, self.chosen.classes, config.scores.gradients_at, names),
            )
            for layer in self.chosen.layers
        ]
        return halves(layers, self._run_clips, self._options, config.scores.alpha)

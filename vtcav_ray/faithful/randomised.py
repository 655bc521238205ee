"""Sanity: repeat a run's effects with shuffled weights. They should be gone.

`whole`: every weight is shuffled, and clips run through the model again. `after <layer>`: only what runs after the
layer is shuffled, from the top of the network downwards (the cascade of Adebayo et al., NeurIPS 2018). The stored
activations of the layer and of those before it still hold, so only gradients are computed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vtcav_ray.activations.extract import Extractor
from vtcav_ray.activations.extraction import Extraction
from vtcav_ray.activations.projections import layer_and_projection
from vtcav_ray.clips.usable import AcceptedRows
from vtcav_ray.config import Config
from vtcav_ray.errors import InputError
from vtcav_ray.faithful.effects import RunClips, among, effects, read_layer, weighed
from vtcav_ray.faithful.plan import Chosen
from vtcav_ray.models.base import Recogniser
from vtcav_ray.models.layers import resolve_layer
from vtcav_ray.models.shuffled import layers_not_after, modules_after, shuffle_weights
from vtcav_ray.rows import RandomisedRow
from vtcav_ray.scores.layer_data import LayerClips, ScoreOptions
from vtcav_ray.store.commits import StageFolder
from vtcav_ray.text.name_lists import NameIndex
from vtcav_ray.video.codec import decode_clip

WHOLE = "whole"
AFTER = "after "  # followed by the layer


class EncodedClips(Sequence[np.ndarray]):
    """Stored clips that are decoded on access, so that only the encoded ones are in memory.

    Args:
        clips: the stage.
        clip_ids: of the clips, in order. Each must be in the table.
    """

    def __init__(self, clips: StageFolder, clip_ids: Sequence[str]) -> None:
        self.clip_ids = list(clip_ids)
        wanted = set(clip_ids)
        self._rows: dict[str, tuple[str, bytes]] = {}
        for _, part in clips.iter_tables("clips", columns=["clip_id", "encoding", "encoded"]):
            keep = pa.array([clip in wanted for clip in part["clip_id"].to_pylist()], pa.bool_())
            for row in part.filter(keep).to_pylist():
                self._rows[row["clip_id"]] = (row["encoding"], row["encoded"])

    def __len__(self) -> int:
        return len(self.clip_ids)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]  # no slices
        """Return the frames, uint8 `[T, H, W, 3]`. Raises an InputError if they can't be decoded."""
        return decode_clip(*self._rows[self.clip_ids[index]])


@dataclass(frozen=True)
class Randomised:
    """Repeats effects with a model whose weights it shuffles.

    Attributes:
        config: of the run.
        model: is changed in place.
        activations: the run's, without the clips that are left out.
        chosen: layers and classes.
        clips: names of the run's clips.
        options: of the tests.
    """

    config: Config
    model: Recogniser
    activations: AcceptedRows
    chosen: Chosen
    clips: RunClips
    options: ScoreOptions

    def __call__(
        self, level: str, frames: EncodedClips, reference: Mapping[str, str]
    ) -> tuple[list[RandomisedRow], dict[str, InputError]]:
        """Return the effects, and clip id -> why it could not be used.

        Args:
            level: `whole`, or `after <layer>`.
            frames: of the reference clips, then of the pool clips to run through the model (only for `whole`).
            reference: clip id -> source video of the class examples to differentiate.
        """
        layers = self._shuffle(level, frames)
        if not layers:
            return [], {}
        index = NameIndex(self.model.class_names)
        places = [place for name in self.chosen.classes if (place := index.place(name)) is not None]
        settings = self.config.activations
        extractor = Extractor(
            self.model,
            layers,
            settings.projection,
            sketch_seed=settings.sketch_seed,
            target=settings.target,
            views=settings.views,
        )
        others = len(frames) - len(reference)
        found = extractor.extract(frames, [places] * len(reference) + [None] * others)
        bad = _bad(found, frames.clip_ids)
        if len(bad.keys() & reference.keys()) == len(reference):
            return [], bad
        changed = [self._layer(layer, found, frames, reference, bad, places) for layer in layers]
        clips = self.clips
        if level == WHOLE:
            usable = {clip: i for i, clip in enumerate(frames.clip_ids) if clip not in bad and clip not in reference}
            there_N = np.array([clip in usable for clip in clips.clip_ids])
            rows = [usable[clip] for clip in clips.clip_ids if clip in usable]
            changed = [_moved(one, there_N, found.activations[one.layer][rows]) for one in changed]
            clips = among(clips, there_N)
        return [
            RandomisedRow(
                level=level,
                class_=one.class_,
                layer=one.layer,
                concept=one.concept,
                z=one.z,
                p_adjusted=one.p_adjusted,
            )
            for one in effects(changed, clips, self.options)
        ], bad

    def _shuffle(self, level: str, frames: EncodedClips) -> list[str]:
        """Shuffle the weights; return the layers whose effects can be repeated."""
        seed = self.config.seed
        if level == WHOLE:
            shuffle_weights(list(self.model.module.modules()), seed)
            return list(self.chosen.layers)
        spec = self.config.activations.projection
        paths = {one: resolve_layer(self.model, layer_and_projection(one, spec)[0]) for one in self.chosen.layers}
        path = resolve_layer(self.model, layer_and_projection(level.removeprefix(AFTER), spec)[0])
        x = self.model.preprocess([_first_readable(frames)], "center").flatten(0, 1)
        same = layers_not_after(self.model, path, list(paths.values()), x)
        after = modules_after(self.model, path, x)
        shuffle_weights(after, seed)
        return [one for one, of in paths.items() if of in same] if after else []

    def _layer(
        self,
        layer: str,
        found: Extraction,
        frames: EncodedClips,
        reference: Mapping[str, str],
        bad: Mapping[str, InputError],
        places: Sequence[int],
    ) -> LayerClips:
        gradients = []
        good_G = np.array([frames.clip_ids[i] not in bad for i in found.gradient_clips])
        for name, place in zip(self.chosen.classes, places, strict=True):
            of = np.flatnonzero((found.gradient_classes == place) & good_G)
            clips = found.gradient_clips[of]
            videos = [reference[frames.clip_ids[i]] for i in clips]
            gradients.append(weighed(name, found.gradients[layer][of], found.gains[layer][clips], videos))
        return read_layer(self.activations, layer, gradients)


def _moved(layer: LayerClips, there_N: np.ndarray, vectors: np.ndarray) -> LayerClips:
    """Return a layer with other vectors in some rows of the pool; the rest is zeros, and must not be used."""
    changed = np.zeros_like(layer.vectors_ND)
    changed[there_N] = vectors
    return LayerClips(layer.layer, layer.model, layer.pool, layer.clip_ids, changed, layer.classes)


def _bad(found: Extraction, clip_ids: Sequence[str]) -> dict[str, InputError]:
    bad = {clip_ids[i]: error for i, error in found.unreadable.items()}
    for one in found.non_finite:
        bad.setdefault(clip_ids[one.clip], InputError("non_finite", f"{one.message}, with shuffled weights"))
    return bad


def _first_readable(frames: EncodedClips) -> np.ndarray:
    for i in range(len(frames) - 1):
        try:
            return frames[i]
        except InputError:
            continue
    return frames[len(frames) - 1]

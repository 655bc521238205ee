"""Responses of the model as the stage `scores` reads them, for `scores.effect: patch`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vtcav_ray.config import Config
from vtcav_ray.errors import StageError
from vtcav_ray.store.commits import StageFolder

if TYPE_CHECKING:
    from vtcav_ray.scores.layer_data import LayerClips, Targets

NO_RESPONSES = (
    "There are no responses at the layer `{layer}`: every pass gave NaN or infinity, or no reference clip is left "
    "after the review. See `vtcav table RUN failures`; scores.effect: first_order does not need them."
)


class ReadResponses:
    """The table `responses`, for the clips and reference clips that are left.

    Args:
        responses: the stage.
        activations: the stage, without the clips that were left out.
        config: the whole config.
    """

    def __init__(self, responses: StageFolder, activations: StageFolder, config: Config) -> None:
        self._responses, self._activations = responses, activations
        self._layers = config.activations.layers
        self._known: set[str] | None = None

    def there(self, clip_ids: Sequence[str]) -> NDArray[np.bool_]:
        """Say which clips have responses at every layer, [N]."""
        if self._known is None:
            found = []
            for layer in self._layers:
                table = self._responses.read("responses", columns=("clip_id",), layer=layer)
                found.append(set() if table is None else set(table["clip_id"].unique().to_pylist()))
            self._known = set.intersection(*found)
        known = self._known
        return np.array([clip in known for clip in clip_ids], bool)

    def added_to(self, clips: LayerClips, gradients: pa.Table, class_of_clip: Mapping[str, str]) -> LayerClips:
        """Return the clips of a layer with the responses to them, and with the classes' own targets.

        Args:
            clips: of the layer.
            gradients: its rows of `gradients`; those of reference clips say which responses count.
            class_of_clip: clip id -> class of the class clips.

        Raises:
            StageError: there are no responses.
        """
        of_class = self.of_classes(clips.layer, clips.clip_ids, gradients, [one.name for one in clips.classes])
        classes = [
            dataclasses.replace(
                one,
                responses_NV=of_class[one.name],
                targets=_targets(gradients, one.name, class_of_clip),
                gain=1.0,  # responses are logits as they are
            )
            for one in clips.classes
        ]
        return dataclasses.replace(clips, classes=classes, there_N=self.there(clips.clip_ids))

    def of_classes(
        self, layer: str, clip_ids: Sequence[str], gradients: pa.Table, names: Sequence[str]
    ) -> dict[str, NDArray[np.float64]]:
        """Return class -> responses to each clip at each reference video, [N, V], in the order of the videos' ids.

        NaN: there is no response to the clip.

        Raises:
            StageError: there are no responses.
        """
        table = self._responses.read("responses", layer=layer)
        places_V = self._videos(layer, gradients)
        if table is None or not self.there(clip_ids).any() or not any(places_V):
            raise StageError(NO_RESPONSES.format(layer=layer))
        row_of = {clip: i for i, clip in enumerate(clip_ids)}
        table = table.filter(pc.is_in(table["clip_id"], pa.array(list(row_of), pa.string())))
        found = {}
        for name in names:
            part = table.filter(pc.equal(table["class"], name))
            if not part.num_rows:
                raise StageError(NO_RESPONSES.format(layer=layer))
            flat = part["responses"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            means_nV = _by_video(flat.reshape(part.num_rows, -1).astype(np.float64), places_V)
            found[name] = np.full((len(row_of), means_nV.shape[1]), np.nan)
            found[name][[row_of[clip] for clip in part["clip_id"].to_pylist()]] = means_nV
        return found

    def _videos(self, layer: str, gradients: pa.Table) -> list[str | None]:
        """Return the source video of each reference clip, in the order of `responses`; None: the clip is left out."""
        whole = StageFolder(self._activations.stage, self._activations.key, self._activations.folder)
        every = whole.read("gradients", columns=("clip_id", "reference"), layer=layer)
        assert every is not None, "the layer has gradients"
        used = gradients.filter(gradients["reference"])
        video_of = dict(zip(used["clip_id"].to_pylist(), used["video_id"].to_pylist(), strict=True))
        return [video_of.get(clip) for clip in sorted(every.filter(every["reference"])["clip_id"].unique().to_pylist())]


def filled(responses_NV: NDArray[np.float64], there_N: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Put the mean response in the rows that no cell uses. Effects are differences, so it changes none of them."""
    return np.where(there_N[:, None], responses_NV, responses_NV[there_N].mean(axis=0))


def _by_video(values_nV: NDArray[np.float64], videos_V: Sequence[str | None]) -> NDArray[np.float64]:
    """Average the responses at the reference clips of each source video. NaN: the clip could not be decoded."""
    if values_nV.shape[1] != len(videos_V):
        raise StageError("The responses are of another reference set. Run again: they will be computed again.")
    columns = []
    for video in sorted({v for v in videos_V if v is not None}):
        of_video = values_nV[:, [i for i, v in enumerate(videos_V) if v == video]]
        if (known := ~np.isnan(of_video).any(axis=0)).any():  # a clip that can't be decoded is NaN for all pool clips
            columns.append(of_video[:, known].mean(axis=1))
    if not columns:
        raise StageError("No reference clip is left. See `vtcav table RUN failures`, and the review.")
    return np.stack(columns, axis=1)


def _targets(gradients: pa.Table, name: str, class_of_clip: Mapping[str, str]) -> Targets:
    """Return a class's target at its own clips and at the reference clips of other classes."""
    from vtcav_ray.clips.classes import same_class
    from vtcav_ray.scores.layer_data import Targets

    part = gradients.filter(pc.equal(gradients["class"], name))
    labels = [class_of_clip[clip] for clip in part["clip_id"].to_pylist()]
    keep = [i for i, label in enumerate(labels) if part["reference"][i].as_py() or same_class(label, name)]
    values, videos = part["value"].to_pylist(), part["video_id"].to_pylist()
    return Targets([values[i] for i in keep], [labels[i] for i in keep], [videos[i] for i in keep])

"""Collect the numbers of one video that an explanation needs, from a run's tables or from the run's model.

Legend: K classes, d numbers of a vector.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vtcav_ray import tables
from vtcav_ray.config import Config
from vtcav_ray.errors import ConfigError, InputError
from vtcav_ray.runs.run import Run
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.text.label_sets import join_labels, split_labels
from vtcav_ray.video.segments import Segment

FROM_TABLES = "the run's tables"


@dataclass(frozen=True)
class Subject:
    """One video as the model sees it. If it has several clips, every number is their mean.

    Attributes:
        video: its id in the run, or the given name of a file that is not of the run.
        label: its true class, or classes (`vtcav_ray.text.label_sets`); None: unknown.
        classes: the model's classes, in the order of `logits`.
        logits: [K].
        activations: layer -> [d].
        gradients: layer -> class -> [d], of at least the two likeliest classes.
        gains: layer -> gain at the video.
        source: where the numbers come from, in words.
    """

    video: str
    label: str | None
    classes: Sequence[str]
    logits: NDArray[np.float64]
    activations: Mapping[str, NDArray[np.float64]]
    gradients: Mapping[str, Mapping[str, NDArray[np.float64]]]
    gains: Mapping[str, float]
    source: str

    @property
    def likeliest(self) -> tuple[str, str]:
        """The predicted class and the runner-up."""
        return likeliest(self.logits, self.classes)


@dataclass(frozen=True)
class Answers:
    """The rows of `answers` of one class example's clips: `label` is its class, `labels` are all its true labels."""

    video: str
    label: str
    labels: str
    clip_ids: Sequence[str]
    classes: Sequence[str]
    logits: NDArray[np.float64]
    gains: Sequence[float]


def likeliest(logits: NDArray[np.floating], classes: Sequence[str]) -> tuple[str, str]:
    """Return the classes of the two largest logits.

    Raises:
        ValueError: there are fewer than two classes.
    """
    if len(classes) < 2:
        raise ValueError(f"the model has {len(classes)} class, and an explanation compares two")
    first, second = np.argsort(-np.asarray(logits), kind="stable")[:2]
    return classes[int(first)], classes[int(second)]


def read_answers(run: Run, videos: Sequence[str] | None = None) -> dict[str, Answers]:
    """Return the answers of the class examples by video id; `videos`: only these. Includes clips that are left out."""
    classes: list[str] = []
    found: dict[str, list[dict[str, Any]]] = {}
    for part in run.iter_tables("answers"):
        classes = classes or tables.classes_of(part)
        keep = pc.equal(part["set"], "class")
        if videos is not None:
            keep = pc.and_(keep, pc.is_in(part["video_id"], pa.array(sorted(set(videos)), pa.string())))
        for row in part.filter(keep).to_pylist():
            found.setdefault(row["video_id"], []).append(row)
    return {
        video: Answers(
            video,
            rows[0]["name"],
            _true_labels(rows),
            [row["clip_id"] for row in rows],
            classes,
            np.mean([row["logits"] for row in rows], axis=0),
            np.mean([row["gains"] for row in rows], axis=0).tolist(),
        )
        for video, rows in found.items()
    }


def _true_labels(rows: Sequence[dict[str, Any]]) -> str:
    """Return the labels of all clips of one class example, in the form of `vtcav_ray.text.label_sets`."""
    name = str(rows[0]["name"])
    others = {row["label"] for row in rows} - {name, None}
    return join_labels([name, *(one for label in others for one in split_labels(label))]) or name if others else name


def subjects_from_tables(run: Run, answers: Sequence[Answers]) -> dict[str, Subject]:
    """Return the subject of each video whose gradients of both likeliest classes are in the tables, by video id."""
    layers = run.config.activations.layers
    of_clip = {clip: one.video for one in answers for clip in one.clip_ids}
    ids = pa.array(sorted(of_clip), pa.string())
    activations: dict[str, dict[str, NDArray[np.float64]]] = {one.video: {} for one in answers}
    gradients: dict[str, dict[str, dict[str, NDArray[np.float64]]]] = {one.video: {} for one in answers}
    for layer in layers:
        rows = run.table("activations", columns=("clip_id", "video_id", "vector"), layer=layer)
        for video, mean in _means(rows.filter(pc.is_in(rows["clip_id"], ids)), ["video_id"]).items():
            activations[video[0]][layer] = mean
        rows = run.table("gradients", columns=("clip_id", "video_id", "class", "vector"), layer=layer)
        rows = rows.filter(pc.is_in(rows["clip_id"], ids))
        for (video_id, name), mean in _means(rows, ["video_id", "class"]).items():
            gradients[video_id].setdefault(layer, {})[name] = mean
    return {
        one.video: Subject(
            one.video,
            one.labels,
            one.classes,
            one.logits,
            activations[one.video],
            gradients[one.video],
            dict(zip(layers, one.gains, strict=True)),
            FROM_TABLES,
        )
        for one in answers
        if all(
            set(likeliest(one.logits, one.classes)) <= gradients[one.video].get(layer, {}).keys() for layer in layers
        )
    }


def _means(rows: pa.Table, by: Sequence[str]) -> dict[tuple[str, ...], NDArray[np.float64]]:
    """Return the mean vector of each group of rows."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, key in enumerate(zip(*(rows[name].to_pylist() for name in by), strict=True)):
        groups.setdefault(key, []).append(i)
    vectors = vectors_of(rows) if rows.num_rows else np.zeros((0, 0))
    return {key: vectors[some].astype(np.float64).mean(axis=0) for key, some in groups.items()}


@dataclass
class Model:
    """The run's recogniser, loaded when it is needed first.

    Attributes:
        run: its tag must be that of the model.
        config: the run's, with the user's overrides and trust.
    """

    run: Run
    config: Config
    _extractor: Any = field(default=None, init=False, repr=False)

    def subject(self, video: str, label: str | None, clips: Sequence[NDArray[np.uint8]], why: str) -> Subject:
        """Run the model forward and backward on a video's clips, `uint8 [T, H, W, 3]` each.

        Raises:
            InputError: the results of the video are not finite.
            ConfigError: the weights are not those of the run, or the model does not take such clips.
        """
        extractor = self._loaded()
        names = extractor.recogniser.class_names
        if len(clips) == 1:
            found = extractor.extract(clips, [()], top=2)
        else:  # the likeliest classes are those of the mean over the clips
            logits = extractor.extract(clips).logits.mean(axis=0)
            two = [names.index(name) for name in likeliest(logits, names)]
            found = extractor.extract(clips, [two] * len(clips))
        for error in found.unreadable.values():
            raise error
        for fault in found.non_finite:
            raise InputError("non_finite", f"{fault.message}.")
        classes = found.gradient_classes
        return Subject(
            video,
            label,
            names,
            found.logits.mean(axis=0).astype(np.float64),
            {layer: rows.astype(np.float64).mean(axis=0) for layer, rows in found.activations.items()},
            {
                layer: {names[int(k)]: rows[classes == k].astype(np.float64).mean(axis=0) for k in np.unique(classes)}
                for layer, rows in found.gradients.items()
            },
            {layer: float(gains.mean()) for layer, gains in found.gains.items()},
            f"a forward and backward pass: {why}",
        )

    def _loaded(self) -> Any:
        if self._extractor is None:
            from vtcav_ray.activations.clip_tables import extractor_of
            from vtcav_ray.models import load_recogniser

            recogniser = load_recogniser(self.config.model, seed=self.config.seed)
            tag = self.run.manifest("activations")["notes"]["model"]
            if recogniser.description.tag != tag:
                raise ConfigError(
                    f"The run was made with the model {tag}, and {self.config.model.checkpoint} is now "
                    f"{recogniser.description.tag}. Restore the old weights, or run again."
                )
            self._extractor = extractor_of(self.config.activations, recogniser, threads=1)
        return self._extractor


def stored_frames(run: Run, clip_ids: Sequence[str]) -> list[NDArray[np.uint8]]:
    """Return the frames of the run's clips, in the order of their ids.

    Raises:
        InputError: a stored clip can't be decoded.
    """
    from vtcav_ray.video.codec import decode_clip

    found: dict[str, NDArray[np.uint8]] = {}
    ids = pa.array(list(clip_ids), pa.string())
    for part in run.iter_tables("clips", columns=["clip_id", "encoding", "encoded"]):
        for row in part.filter(pc.is_in(part["clip_id"], ids)).to_pylist():
            found[row["clip_id"]] = decode_clip(row["encoding"], row["encoded"])
    return [found[clip] for clip in clip_ids]


def cut_example(config: Config, uri: str, *, named: bool, segment: Segment | None = None) -> list[NDArray[np.uint8]]:
    """Cut the clips of one video as the run cuts those of its class examples.

    Args:
        config: of the run: sampling, limits and storage options.
        uri: of the video.
        segment: to cut from; None: the whole video.
        named: the user named this URI, so it may lead to a host that is not public, as `videos.uri` may.

    Raises:
        InputError: the video can't be used.
        AccessError, EnvironmentFault, OSError and others: the storage can't be read.
    """
    from vtcav_ray.clips.corpus import Example
    from vtcav_ray.clips.cut import cut_clips
    from vtcav_ray.clips.plan_table import PlanRows
    from vtcav_ray.store.urls import READ_LIMITS, origin_of
    from vtcav_ray.video.codec import decode_clip

    options = config.videos.read_options
    if named and (origin := origin_of(uri)):
        limits = options[READ_LIMITS]
        options[READ_LIMITS] = dataclasses.replace(limits, private=(*limits.private, origin))
    example = Example(uri, uri, uri, None, None, segment)
    rows = PlanRows(config.seed, config.clips.class_views)
    for view in range(config.clips.class_views):
        rows.add("class", "", "full", example, None, number=view)
    clips, failures = cut_clips(
        rows.table(),
        None,
        config.clips,
        max_frames=config.tracks.max_frames,
        max_pixels=config.tracks.max_pixels,
        max_cpu_seconds=config.resources.decode.cpu_seconds,
        max_held_bytes=int(config.resources.decode.frames_gb * 1e9),
        storage_options=options,
    )
    if failures:
        raise InputError(failures[0].error_kind, failures[0].message)
    return [decode_clip(row["encoding"], row["encoded"]) for row in clips.to_pylist()]

"""The worker of the stage `gradcam`: processes the class examples of one shard one by one."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa

from vtcav_ray import tables
from vtcav_ray.config import Config
from vtcav_ray.errors import InputError
from vtcav_ray.gradcam.clip import ClipMaps, MapSettings, examine
from vtcav_ray.gradcam.maps import MODES, GradCam, Mode
from vtcav_ray.gradcam.measures import ALIGNED_SIDE
from vtcav_ray.heatmaps import overlays
from vtcav_ray.heatmaps.boxes import own_object
from vtcav_ray.heatmaps.examples import Examples, Row, nulls
from vtcav_ray.heatmaps.resample import as_image
from vtcav_ray.models import load_recogniser
from vtcav_ray.models.shuffled import shuffle_weights
from vtcav_ray.rows import Failure
from vtcav_ray.runs.devices import device_of_actor
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.store.folder import Folder
from vtcav_ray.tables import ALIGNED, OVERLAYS
from vtcav_ray.text.name_lists import NameIndex
from vtcav_ray.video.codec import decode_clip

BATCH_SIZE = 8  # plays per model call, unless the config sets it


class GradcamWorker:
    """The worker that runs the recogniser, and a copy with shuffled weights, over the plays of each clip.

    Args:
        config: the whole config.
        clips, tracks: folders of the clips and of the tracks of their videos; None: nothing was tracked.
        folder: the stage's own folder, for the overlays.
    """

    def __init__(self, config: Config, clips: StageFolder, tracks: StageFolder | None, folder: Folder) -> None:
        self.folder = folder
        given = config.gradcam
        modes: list[Mode] = [mode for mode in MODES if mode in given.modes]
        self.settings = MapSettings(modes, given.window, given.stride, given.place)
        self.drawn_layer = given.drawn_layer
        asked = config.resources.extract.batch_size
        batch = asked if isinstance(asked, int) else BATCH_SIZE
        device = device_of_actor(config.resources.extract)
        recogniser = load_recogniser(config.model, device, seed=config.seed)
        other = load_recogniser(config.model, device, seed=config.seed)
        shuffle_weights(list(other.module.modules()), config.seed)
        self.model = GradCam(recogniser, given.layers, batch_size=batch)
        self.shuffled = GradCam(other, given.layers, batch_size=batch)
        self.examples = Examples(clips, tracks, recogniser.preprocessor)
        self.tag = recogniser.description.tag
        self.class_index = NameIndex(recogniser.class_names)

    def __call__(self, rows: pa.Table) -> ShardOutput:
        wanted = {row["clip_id"]: row for row in rows.to_pylist()}
        tracks = self.examples.tracks(rows)
        found: list[Row] = []
        drawn: list[Row] = []
        failures: list[Failure] = []
        sums: dict[tuple[str, str, str], list[Any]] = {}
        seconds = 0.0
        for clip in self.examples.clips(rows):
            row = wanted[clip["clip_id"]]
            started = time.perf_counter()
            try:
                boxes = self.examples.boxes(clip, tracks.get(clip["video_id"], []))
                frames = decode_clip(clip["encoding"], clip["encoded"])
                maps = examine(self.model, self.shuffled, frames, self._target(row["class"]), boxes, self.settings)
            except InputError as error:
                failures.append(Failure.of_clip(row, error))
                continue
            seconds += time.perf_counter() - started
            for (layer, mode), one in maps.items():
                names = {name: row[name] for name in ("clip_id", "video_id", "class")}
                found.append({**names, "layer": layer, "mode": mode, **nulls(one.figures), "model": self.tag})
                _add(sums, (row["class"], layer, mode), one)
            if row["draw"]:
                drawn += self._draw(row, frames, boxes, maps)
        parts = {
            "gradcam": pa.Table.from_pylist(found, schema=tables.GRADCAM),
            "gradcam_places": pa.Table.from_pylist(
                found if self.settings.place is not None else [], schema=tables.GRADCAM_PLACES
            ),
            "aligned": _aligned_table(sums),
            "overlays": pa.Table.from_pylist(drawn, schema=OVERLAYS),
        }
        metrics = {"clips": len(wanted) - len(failures), "clip_seconds": seconds, "overlays": len(drawn)}
        return ShardOutput({name: table for name, table in parts.items() if table.num_rows}, failures, metrics)

    def _target(self, label: str) -> int:
        place = self.class_index.place(label)
        if place is None:
            raise InputError(
                "label", f"the model has no class {label!r}. Rename the label, or map it in videos.labels."
            )
        return place

    def _draw(
        self, row: Row, frames: np.ndarray, boxes: list[np.ndarray], maps: dict[tuple[str, Mode], ClipMaps]
    ) -> list[Row]:
        pixels = as_image(self.model.recogniser.preprocessor, self.model.prepare(frames))
        number = own_object(boxes)
        drawn = []
        for mode in self.settings.modes:
            one = maps[self.drawn_layer, mode]
            picture = overlays.draw(
                pixels,
                one.shown,
                one.shown_back,
                (f"original: {one.answers[0]}", f"reversed: {one.answers[1]}"),
                None if number is None else boxes[number],
            )
            files = overlays.write(self.folder, picture, (row["clip_id"], self.drawn_layer, mode), f"-{mode}")
            names = {name: row[name] for name in ("clip_id", "video_id", "class")}
            drawn.append({**names, "layer": self.drawn_layer, "mode": mode, **files})
        return drawn


def _add(sums: dict[tuple[str, str, str], list[Any]], key: tuple[str, str, str], one: ClipMaps) -> None:
    if one.aligned is None:
        return
    entry = sums.setdefault(key, [0, np.zeros((ALIGNED_SIDE,) * 2), np.zeros((ALIGNED_SIDE,) * 2)])
    entry[0] += 1
    entry[1] += one.aligned[0]
    entry[2] += one.aligned[1]


def _aligned_table(sums: dict[tuple[str, str, str], list[Any]]) -> pa.Table:
    rows = [
        {"class": name, "layer": layer, "mode": mode, "clips": clips, "sum": total.ravel(), "count": seen.ravel()}
        for (name, layer, mode), (clips, total, seen) in sums.items()
    ]
    return pa.Table.from_pylist(rows, schema=ALIGNED)

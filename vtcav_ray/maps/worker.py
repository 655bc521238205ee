"""The worker of the stage `maps`: examines the class examples of one shard one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch

from vtcav_ray.activations.projections import layer_and_projection
from vtcav_ray.config import Config
from vtcav_ray.errors import InputError
from vtcav_ray.heatmaps import overlays
from vtcav_ray.heatmaps.boxes import own_object
from vtcav_ray.heatmaps.examples import Examples, Row, nulls
from vtcav_ray.heatmaps.resample import as_image
from vtcav_ray.maps.examine import Examined, examine
from vtcav_ray.maps.inner import LayerActivations
from vtcav_ray.models import load_recogniser
from vtcav_ray.rows import Failure, MapRow, table_of
from vtcav_ray.runs.devices import device_of_actor
from vtcav_ray.scores.choose import CellKey
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.store.folder import Folder
from vtcav_ray.tables import MAP_OVERLAYS
from vtcav_ray.tcav.directions import Directions
from vtcav_ray.video.codec import decode_clip

BATCH_SIZE = 8  # inputs per model call, unless the config sets it


class MapsWorker:
    """The worker that runs the recogniser on clips, whole and with deleted places.

    Args:
        config: the whole config.
        clips, tracks: folders of the clips and of the tracks of their videos; None: nothing was tracked.
        cells: the cells to examine; a clip is examined for those of its class.
        found: (layer, concept, against) -> directions.
        folder: the stage's own folder, for the overlays.
    """

    def __init__(
        self,
        config: Config,
        clips: StageFolder,
        tracks: StageFolder | None,
        cells: Sequence[CellKey],
        found: Mapping[tuple[str, str, str], Directions],
        folder: Folder,
    ) -> None:
        self.cells, self.found, self.folder, self.seed = cells, found, folder, config.seed
        self.module_of = {
            cell.layer: layer_and_projection(cell.layer, config.activations.projection)[0] for cell in cells
        }
        asked = config.resources.extract.batch_size
        batch = asked if isinstance(asked, int) else BATCH_SIZE
        self.recogniser = load_recogniser(config.model, device_of_actor(config.resources.extract), seed=config.seed)
        layers = list(dict.fromkeys(self.module_of.values()))
        self.activations = LayerActivations(self.recogniser, layers, batch_size=batch)
        self.examples = Examples(clips, tracks, self.recogniser.preprocessor)
        self.tag = self.recogniser.description.tag

    def __call__(self, rows: pa.Table) -> ShardOutput:
        wanted = {row["clip_id"]: row for row in rows.to_pylist()}
        tracks = self.examples.tracks(rows)
        found: list[MapRow] = []
        drawn: list[Row] = []
        failures: list[Failure] = []
        for clip in self.examples.clips(rows):
            row = wanted[clip["clip_id"]]
            try:
                frames = decode_clip(clip["encoding"], clip["encoded"])
                x = self.recogniser.preprocess([frames])[0, 0]
                boxes = self.examples.boxes(clip, tracks.get(clip["video_id"], []))
                number = own_object(boxes)
                own = None if number is None else boxes[number]
                maps = self._maps(row, x, own)
            except InputError as error:
                failures.append(Failure.of_clip(row, error))
                continue
            found += [self._row(row, cell, one) for cell, one in maps.items()]
            if row["draw"]:
                drawn += self._draw(row, as_image(self.recogniser.preprocessor, x), own, maps)
        tables = {
            "maps": table_of(found, MapRow),
            "map_overlays": pa.Table.from_pylist(drawn, schema=MAP_OVERLAYS),
        }
        metrics = {"clips": len(wanted) - len(failures), "overlays": len(drawn)}
        return ShardOutput({name: table for name, table in tables.items() if table.num_rows}, failures, metrics)

    def _maps(self, row: Row, x: torch.Tensor, boxes_T4: np.ndarray | None) -> dict[CellKey, Examined]:
        whole = self.activations(x[None])
        found = {}
        for cell in self.cells:
            if cell.class_ != row["class"]:
                continue
            module = self.module_of[cell.layer]

            def again(inputs: torch.Tensor, module: str = module) -> torch.Tensor:
                return self.activations(inputs, [module])[module]

            given = self.found[cell.layer, cell.concept, cell.against]
            found[cell] = examine(x, whole[module][0], given, boxes_T4, again, self.seed)
        return found

    def _row(self, row: Row, cell: CellKey, one: Examined) -> MapRow:
        return MapRow(
            clip_id=row["clip_id"],
            video_id=row["video_id"],
            class_=cell.class_,
            layer=cell.layer,
            concept=cell.concept,
            against=cell.against,
            timeline=one.timeline.tolist(),
            timeline_random=one.timeline_random.tolist(),
            model=self.tag,
            **nulls(one.figures),
        )

    def _draw(
        self, row: Row, pixels: np.ndarray, boxes_T4: np.ndarray | None, maps: Mapping[CellKey, Examined]
    ) -> list[Row]:
        drawn = []
        for cell, one in maps.items():
            upper, lower = (np.maximum(values, 0) for values in (one.concept, one.random))
            picture = overlays.draw(pixels, upper, lower, (cell.concept, "random direction"), boxes_T4)
            picture = overlays.with_timeline(picture, one.timeline, one.timeline_random)
            files = overlays.write(self.folder, picture, (row["clip_id"], *cell))
            names = {name: row[name] for name in ("clip_id", "video_id", "class")}
            place = {"layer": cell.layer, "concept": cell.concept, "against": cell.against}
            drawn.append({**names, **place, **files})
        return drawn

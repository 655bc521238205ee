"""The tables of some clips: the model's answers, and the activations and gradients of each layer.

The stage `activations` makes them of a shard's stored clips, and `vtcav_ray.notebook` of a user's arrays.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from vtcav_ray import tables
from vtcav_ray.config.model import ActivationsConfig
from vtcav_ray.errors import ConfigError, InputError
from vtcav_ray.rows import Failure
from vtcav_ray.store.vectors import vector_array
from vtcav_ray.text.name_lists import NameIndex

if TYPE_CHECKING:
    from vtcav_ray.activations.extract import Extractor
    from vtcav_ray.activations.extraction import Extraction
    from vtcav_ray.models import Recogniser

BATCH_SIZE = 8  # views per model call on a CPU, if the config gives none
Row = dict[str, Any]
ReadClip = Callable[[Row], np.ndarray]


@dataclass(frozen=True)
class ClipTables:
    """The tables of some clips.

    Attributes:
        tables: `answers`, and `activations/layer=...` and `gradients/layer=...` of each layer; only those with rows.
        failures: clips that can't be used.
        figures: numbers of clips, gradients, and slots in the model's batches.
    """

    tables: dict[str, pa.Table]
    failures: list[Failure]
    figures: dict[str, float]


class ClipExtractor:
    """A recogniser that turns clips into tables.

    Args:
        recogniser: the model, on its device.
        extractor: of this model.
        settings: with which the extractor was made.
        classes: names of the classes to differentiate at every class example, for `classes: listed`; None: all.

    Raises:
        ConfigError: the model does not have one of `classes`.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        extractor: Extractor,
        settings: ActivationsConfig,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.recogniser, self.extractor, self.settings = recogniser, extractor, settings
        self._dtype = np.dtype(settings.dtype)
        self._tag = recogniser.description.tag
        self._index = NameIndex(recogniser.class_names)
        self._listed: Sequence[str] = ()
        if settings.classes == "listed":
            self._listed = classes or recogniser.class_names
        if unknown := [name for name in self._listed if name not in self._index]:
            raise ConfigError(
                f"`clips.classes`: the model has no class {unknown[0]!r}. It has: "
                f"{', '.join(self._index.names[:12])}{', ...' if len(self._index.names) > 12 else ''}. "
                "`model.labels` can give other names."
            )
        self._top = int(settings.classes.removeprefix("top-")) if settings.classes.startswith("top-") else 0

    def __call__(
        self, rows: Sequence[Row], differentiate: Mapping[str, Sequence[str] | None], read: ReadClip
    ) -> ClipTables:
        """Run the model over clips.

        Args:
            rows: `clip_id`, `set`, `name`, `kind`, `video_id` and `label` of each clip, and what `read` needs.
            differentiate: video of the reference set -> names of the classes to differentiate there.
            read: returns a row's clip, `uint8 [T, H, W, 3]`, RGB; called in threads, a few batches ahead.
        """
        failures: list[Failure] = []
        reference, examples, others = _Clips(), _Clips(), _Clips()
        for row in rows:
            names = differentiate.get(row["video_id"]) or ()
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
        parts = self._extract(groups, read)
        if self.extractor.batch_size != batch_size:  # it did not fit: a table must be made with one batch size
            parts = self._extract(groups, read)
        for clips, found in parts:
            first = {item.clip: InputError("non_finite", item.message) for item in reversed(found.non_finite)}
            first |= found.unreadable
            failures += [Failure.of_clip(clips[i], first[i]) for i in sorted(first)]
        backward = sum(len(found.gradient_clips) for _, found in parts)
        sizes = [len(group.rows) for group in groups]
        figures = {"clips": sum(sizes), "gradients": backward}
        made = self._tables(parts, [row["clip_id"] for row in rows])
        return ClipTables(made, failures, figures | self._batches(*sizes))

    def _extract(self, groups: Sequence[_Clips], read: ReadClip) -> list[tuple[list[Row], Extraction]]:
        parts = []
        for group in groups:
            if group.rows:
                found = self.extractor.extract(_Read(group.rows, read), group.classes or None, top=self._top)
                parts.append((group.rows, found.that_fits(self._dtype)))
        return parts

    def _batches(self, *clips: int) -> dict[str, float]:
        """Return how full the model's batches were: clips, and slots for clips, of one `extract` call each."""
        room = self.extractor.clips_a_batch
        return {"batch_items": sum(clips), "batch_slots": sum(-(-count // room) * room for count in clips)}

    def _classes_of(self, row: Row, everywhere: Sequence[str]) -> list[int]:
        """Return the classes to differentiate for a class example, its own first.

        Args:
            row: of the table `clips`.
            everywhere: the classes of the run if the clip is in the reference set, else none.
        """
        label = row["name"]  # of its labels, the class that it is an example of
        if label not in self._index:
            near = self._index.nearest(label)
            known = f"the nearest is {near!r}" if near else f"{', '.join(self.recogniser.class_names[:4])}, ..."
            raise InputError(
                "label",
                f"the model has no class {label!r}; it has {len(self.recogniser.class_names)}: {known}. "
                "Rename the label, or map it in videos.labels.",
            )
        places = (self._index.place(name) for name in (label, *everywhere, *self._listed))
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
        for layer in self.settings.layers:
            for name, make in (("activations", self._activations), ("gradients", self._gradients)):
                put(f"{name}/layer={layer}", [make(clips, found, layer) for clips, found in readable])
        return tables_of

    def _answers(self, clips: list[Row], found: Extraction) -> pa.Table:
        good = [i for i in range(len(clips)) if i not in found.bad_clips]
        of = [clips[i] for i in good]
        names = list(self.recogniser.class_names)
        gains = np.stack([found.gains[layer][good] for layer in self.settings.layers], axis=1)
        return pa.table(
            {
                **{name: [row[name] for row in of] for name in ("clip_id", "set", "name", "kind", "video_id", "label")},
                "predicted": [names[int(k)] for k in found.predicted[good]],
                "logits": list(found.logits[good].astype(np.float32)),
                "gains": list(gains.astype(np.float32)),
                "views": [found.views] * len(of),
                "model": [self._tag] * len(of),
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
                "model": [self._tag] * len(of),
                "vector": vector_array(vectors.astype(self._dtype)),
            },
            schema=tables.activations(vectors.shape[1], self._dtype.name),
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
                "target": [self.settings.target] * len(rows),
                "value": found.gradient_values[rows].astype(np.float32),
                "predicted": [names[int(found.predicted[int(found.gradient_clips[g])])] for g in rows],
                "reference": [row["reference"] for row in of],
                "gain": found.gains[layer][found.gradient_clips[rows]],
                "margin": found.gradient_margins[rows],
                "views": [found.views] * len(rows),
                "model": [self._tag] * len(rows),
                "vector": vector_array(found.gradients[layer][rows]),
            },
            schema=tables.gradients(d),
        )


def extractor_of(settings: ActivationsConfig, recogniser: Recogniser, *, threads: int) -> Extractor:
    """Return the extractor of these settings. `threads`: number that read clips ahead."""
    from vtcav_ray.activations.extract import Extractor

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


class _Read(Sequence[np.ndarray]):
    """Clips that are read on access."""

    def __init__(self, rows: list[Row], read: ReadClip) -> None:
        self._rows, self._read = rows, read

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: Any) -> Any:
        return self._read(self._rows[i])

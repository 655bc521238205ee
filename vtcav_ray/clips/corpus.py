"""The corpus as the planner sees it: source videos, and the examples (files, or segments of files) that each has.

The source video is the unit of all statistics. Usually it is one file, and one example. A manifest may give segments
of a file, which are examples of that file, and may name the source video that several files are parts of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vtcav_ray.tables import rows_of
from vtcav_ray.text.label_sets import join_labels, split_labels
from vtcav_ray.text.name_lists import NameIndex
from vtcav_ray.video.segments import Range, Segment


@dataclass(frozen=True, slots=True)  # slots: there is one for each video of the corpus
class Example:
    """A part of a source video that clips may be cut from.

    Attributes:
        video_id: of its source video.
        file: its file's id in the table `videos`.
        uri: of the file.
        label: its labels (`vtcav_ray.text.label_sets`), with those of the segments that it overlaps; None: unknown.
        own: its own labels alone.
        segment: None: the whole file.
        frames: first and last source frame of the segment, if the stage `tracks` has found them.
    """

    video_id: str
    file: str
    uri: str
    label: str | None
    own: str | None
    segment: Segment | None = None
    frames: Range | None = None


@dataclass(frozen=True)
class Corpus:
    """The examples of each source video, in the order of the table."""

    examples: dict[str, list[Example]]

    @classmethod
    def of(cls, videos: pa.Table, left_out: Collection[str] = (), found: pa.Table | None = None) -> Corpus:
        """Read the corpus.

        Args:
            videos: VIDEOS table, with its optional columns if it has them.
            left_out: ids of files to leave out.
            found: the table `segments` of the stage `tracks`. Segments in which it found no frame are left out.
        """
        frames = _frames_by_segment(found)
        examples: dict[str, list[Example]] = {}
        texts: dict[str, str] = {}  # one object for each text of labels, not one for each video
        for row in rows_of(videos):
            if row["video_id"] in left_out:
                continue
            unit = row.get("source") or row["video_id"]
            if row["label"]:
                row["label"] = texts.setdefault(row["label"], row["label"])
            for example in _examples(unit, row, frames):
                examples.setdefault(unit, []).append(example)
        return cls(examples)

    @property
    def listed(self) -> list[tuple[str, str, str | None]]:
        """(video_id, URI of its first file, all its own labels) of every source video."""
        return [
            (unit, some[0].uri, _joined(example.own for example in some) if len(some) > 1 else some[0].own)
            for unit, some in self.examples.items()
        ]

    def without(self, left_out: Collection[str]) -> Corpus:
        """Return the corpus without some source videos."""
        if not left_out:
            return self
        return Corpus({unit: some for unit, some in self.examples.items() if unit not in left_out})

    def labels(self, known: NameIndex | None = None) -> list[str | None]:
        """Return every label of every source video, once per video; None for a video without one.

        Args:
            known: the model's classes, as for `split_labels`.
        """
        texts = [label for _, _, label in self.listed]
        return [one for text in texts for one in split_labels(text, known) or (None,)]

    @property
    def segments(self) -> int:
        """Number of examples that are segments of their file."""
        return sum(example.segment is not None for some in self.examples.values() for example in some)

    @property
    def seconds(self) -> list[float]:
        """Duration of each segment whose end is known."""
        parts = [example.segment for some in self.examples.values() for example in some]
        return [part.end - part.start for part in parts if part is not None and part.end is not None]

    def spelled(self, spelling: Mapping[str, str]) -> Corpus:
        """Return the corpus with each text of labels replaced."""
        if all(text == spelling[text] for text in self.texts):
            return self

        texts: dict[str | None, str | None] = {None: None}
        texts.update(spelling.items())

        def of(one: Example) -> Example:  # `dataclasses.replace` takes five times as long
            return Example(one.video_id, one.file, one.uri, texts[one.label], texts[one.own], one.segment, one.frames)

        return Corpus({unit: [of(example) for example in some] for unit, some in self.examples.items()})

    @property
    def texts(self) -> set[str]:
        """Every text of labels."""
        of_all = (example for some in self.examples.values() for example in some)
        return {text for example in of_all for text in (example.label, example.own) if text is not None}

    def of_files(self) -> dict[str, list[Example]]:
        """Return the examples of each file, by the file's id."""
        found: dict[str, list[Example]] = {}
        for some in self.examples.values():
            for example in some:
                found.setdefault(example.file, []).append(example)
        return found


def _examples(unit: str, row: Mapping[str, Any], frames: Mapping[tuple[str, Segment], Range | None]) -> list[Example]:
    file, uri, label, parts = row["video_id"], row["uri"], row["label"] or None, row.get("segments")
    if not parts:
        return [Example(unit, file, uri, label, label)]
    segments = [(Segment(part["start"], part["end"]), part["label"]) for part in parts]
    found = []
    for segment, own in segments:
        if frames and frames.get((file, segment)) is None:
            continue
        near = [other for part, other in segments if part.overlaps(segment)]
        shared = _joined(near) if len(near) > 1 else own
        found.append(Example(unit, file, uri, shared, own, segment, frames.get((file, segment))))
    return found


def _frames_by_segment(found: pa.Table | None) -> dict[tuple[str, Segment], Range | None]:
    if found is None:
        return {}
    return {
        (row["video_id"], Segment(row["start"], row["end"])): (
            None if row["first"] is None else (row["first"], row["last"])
        )
        for row in found.to_pylist()
    }


def _joined(labels: Iterable[str | None]) -> str | None:
    return join_labels(one for label in labels for one in split_labels(label))

"""COCO-style video JSON, in the three forms that are published.

- YouTube-VIS, OVIS: an annotation per object with `bboxes`, one [x, y, width, height] or null per frame. The frames of
  the video file must be those of `videos[].file_names`.
- TAO: an annotation per box, with `image_id` and `track_id`; `images[].frame_index` counts from 0.
- CocoVID: the same with `images[].frame_id` and `instance_id`.

The file is read twice, element by element: first videos, images and categories, then annotations. Memory holds the list
of images and videos, never the annotations. Boxes of neighbouring keyframes are interpolated, as TAO needs.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vtcav_ray.registry import TRACK_FORMATS
from vtcav_ray.tracks.formats.base import BadFile, Declared, Lines, Piece, Problem, TrackFile, TrackFormat
from vtcav_ray.tracks.formats.json_stream import elements

_TRACK_KEYS = ("track_id", "instance_id")
_FRAME_KEYS = ("frame_index", "frame_id")


@dataclass
class _Known:
    """What the annotations refer to, by id."""

    videos: dict[Any, str] = field(default_factory=dict)
    declared: dict[str, Declared] = field(default_factory=dict)
    images: dict[Any, tuple[Any, int]] = field(default_factory=dict)  # video id, frame
    categories: dict[Any, str] = field(default_factory=dict)


@TRACK_FORMATS.register("coco-video")
class CocoVideo(TrackFormat):
    """Annotations of any number of videos."""

    unit = "annotation"
    linking = "keyframes"

    def video_of(self, path: str) -> str | None:
        return path if path.lower().endswith(".json") else None

    def read(self, file: TrackFile) -> Iterator[Piece]:
        known = _known(file)
        lines = Lines()
        found = False
        with file.open() as stream:
            for _, place, entry in elements(stream, ("annotations",)):
                found = True
                _add(lines, entry, place, known)
                if lines.full:
                    yield lines.take()
        if not found and not known.videos:
            raise BadFile("it has neither `videos` nor `annotations`")
        last = lines.take()
        yield Piece(last.lines, known.declared, last.problems)


def _known(file: TrackFile) -> _Known:
    known = _Known()
    with file.open() as stream:
        for key, place, entry in elements(stream, ("videos", "images", "categories")):
            where = f"`{key}[{place}]`"
            if not isinstance(entry, Mapping) or not isinstance(entry.get("id"), str | int):
                raise BadFile(f"{where} has no `id`")
            if key == "categories":
                known.categories[entry["id"]] = str(entry.get("name", entry["id"]))
            elif key == "videos":
                name = _video_name(entry, where)
                known.videos[entry["id"]] = name
                known.declared[name] = _declared(entry)
            elif (frame := next((entry[k] for k in _FRAME_KEYS if k in entry), None)) is not None:
                if not isinstance(frame, int) or "video_id" not in entry:
                    raise BadFile(f"{where} has no `video_id`, or its frame is not a whole number")
                known.images[entry["id"]] = (entry["video_id"], frame)
    return known


def _video_name(entry: Mapping[str, Any], where: str) -> str:
    if isinstance(name := entry.get("name"), str) and name:
        return name
    files = entry.get("file_names")
    if isinstance(files, list) and files and isinstance(files[0], str) and posixpath.dirname(files[0]):
        return posixpath.dirname(files[0])
    raise BadFile(f"{where} has neither a `name` nor `file_names` in a folder")


def _declared(entry: Mapping[str, Any]) -> Declared:
    def number(name: str) -> int | None:
        value = entry.get(name)
        return value if isinstance(value, int) and 0 < value < 2**31 else None

    # Only YouTube-VIS lists the frames; the `length` of others counts the annotated ones.
    files = entry.get("file_names")
    length = len(files) if isinstance(files, list) else None
    return Declared(number("width"), number("height"), None, length)


def _add(lines: Lines, entry: Any, place: int, known: _Known) -> None:
    where = f"`annotations[{place}]`"
    if not isinstance(entry, Mapping):
        raise BadFile(f"{where} is not an object")
    image = known.images.get(entry.get("image_id"))
    video_id = entry.get("video_id", image[0] if image is not None else None)
    if video_id not in known.videos:
        raise BadFile(f"{where} is of the video {video_id!r}, which `videos` does not list")
    video = known.videos[video_id]
    try:
        for frame, box in _boxes(entry, image):
            lines.add(
                video=video,
                track=_track(entry),
                label=known.categories.get(entry.get("category_id"), str(entry.get("category_id", "object"))),
                frame=frame,
                box=box,
                confidence=_score(entry),
                line=place,
            )
    except BadFile as error:
        lines.problems.append(Problem(video, f"{where}: {error}"))


def _boxes(entry: Mapping[str, Any], image: tuple[Any, int] | None) -> Iterator[tuple[int, list[float]]]:
    if isinstance(boxes := entry.get("bboxes"), list):
        for frame, box in enumerate(boxes):
            if box:
                yield frame, _corners(box)
        return
    if image is None:
        raise BadFile("it has neither `bboxes` nor an `image_id` that `images` lists with `frame_index` or `frame_id`")
    yield image[1], _corners(entry.get("bbox"))


def _corners(box: Any) -> list[float]:
    numbers = box if isinstance(box, list) else []
    if len(numbers) != 4 or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        raise BadFile(f"its box {str(box)[:80]} is not [x, y, width, height]")
    x, y, width, height = (_float(number) for number in numbers)
    return [x, y, x + width, y + height]


def _float(number: float) -> float:
    """Return a number of JSON, where whole numbers may have any size."""
    try:
        return float(number)
    except OverflowError as error:
        raise BadFile("a number in it is too large") from error


def _track(entry: Mapping[str, Any]) -> str | None:
    found = next((entry[key] for key in _TRACK_KEYS if key in entry), None)
    if found is None and "bboxes" in entry:
        found = entry.get("id")
    return None if found is None else str(found)


def _score(entry: Mapping[str, Any]) -> float | None:
    score = entry.get("score")
    return _float(score) if isinstance(score, int | float) and not isinstance(score, bool) else None

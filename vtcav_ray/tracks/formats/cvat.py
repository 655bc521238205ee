"""CVAT for video 1.1: an XML file per task, with a `track` per object and a `box` per frame.

Between two boxes of a track the object moves in a straight line, as CVAT draws it, until a box with `outside="1"`.
Frames are indices into the video that the task was made from, also where the task shows only every n-th frame.

The file is parsed by expat, piece by piece, in little memory. A document type is refused, so no entity can expand.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import IO
from xml.parsers import expat

from vtcav_ray.registry import TRACK_FORMATS
from vtcav_ray.tracks.formats.base import (
    MOST_FILE_BYTES,
    BadFile,
    Declared,
    Lines,
    Piece,
    TrackFile,
    TrackFormat,
    real_number,
    whole_number,
    without_ending,
)

_CHUNK_BYTES = 1 << 20
_MOST_TEXT = 10_000  # characters of one element's text that are kept
_DEFAULT_NAME = "annotations.xml"  # CVAT's name for every task's file
_SIDES = ("xtl", "ytl", "xbr", "ybr")
_OTHER_SHAPES = ("polygon", "polyline", "points", "cuboid", "ellipse", "mask", "skeleton")
_META = ("annotations", "meta")


@TRACK_FORMATS.register("cvat")
class Cvat(TrackFormat):
    """An XML file per video, named like it: `clip.xml`, or `clip/annotations.xml`."""

    one_video = True
    linking = "all"

    def video_of(self, path: str) -> str | None:
        folder, name = posixpath.split(path)
        if not name.lower().endswith(".xml"):
            return None
        return folder if name.lower() == _DEFAULT_NAME else without_ending(path)

    def read(self, file: TrackFile) -> Iterator[Piece]:
        parser = _Parser()
        with file.open() as stream:
            for _ in parser.feed(stream):
                if parser.lines.full:
                    yield parser.lines.take()
        parser.check_end()
        last = parser.lines.take()
        yield Piece(last.lines, {"": parser.declared()})

    def names_inside(self, file: TrackFile) -> Sequence[str]:
        """Return the task's source file and its name."""
        parser = _Parser()
        with file.open() as stream:
            for _ in parser.feed(stream):
                if parser.past_meta:
                    break
        found = (parser.text_of("source"), parser.text_of("name"))
        return [name for name in found if name]


class _Parser:
    """Handlers of the parts of the file, and what they have found."""

    def __init__(self) -> None:
        self.lines = Lines()
        self.past_meta = False
        self._texts: dict[tuple[str, ...], str] = {}
        self._path: list[str] = []
        self._track: Mapping[str, str] | None = None
        self._tracks = 0
        self._expat = expat.ParserCreate()
        self._expat.buffer_text = True
        self._expat.StartDoctypeDeclHandler = self._refuse_doctype
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._text

    def feed(self, stream: IO[bytes]) -> Iterator[None]:
        """Parse a file; yield after each piece of it.

        Raises:
            BadFile: with the line.
        """
        total = 0
        try:
            while chunk := stream.read(_CHUNK_BYTES):
                total += len(chunk)
                if total > MOST_FILE_BYTES:
                    raise BadFile(f"it has more than {MOST_FILE_BYTES:,} bytes, which is the limit")
                self._expat.Parse(chunk, False)
                yield
            self._expat.Parse(b"", True)
        except expat.ExpatError as error:
            raise BadFile(f"line {error.lineno}: it is not XML: {expat.ErrorString(error.code)}") from error
        except BadFile as error:
            raise BadFile(f"line {self._expat.CurrentLineNumber}: {error}") from error

    def check_end(self) -> None:
        """Raise BadFile if the file was no `CVAT for video` export."""
        if self.text_of("mode") == "annotation" and not self._tracks:
            raise BadFile("it is an export `CVAT for images`. Export the task as `CVAT for video 1.1`")

    def text_of(self, name: str) -> str | None:
        """Return the text of an element of the task's meta data; None if it is absent or empty."""
        for above in ((*_META, "task"), (*_META, "job"), _META):
            if text := self._texts.get((*above, name), "").strip():
                return text
        return None

    def declared(self) -> Declared:
        """Return the size of the frames that the boxes were drawn on."""
        sides = []
        for side in ("width", "height"):
            found = (self._texts.get((*_META, *above, "original_size", side)) for above in (("task",), ("job",), ()))
            text = next((text for text in found if text), None)
            sides.append(whole_number(text, f"original_size/{side}") if text is not None else None)
        return Declared(width=sides[0], height=sides[1])

    def _refuse_doctype(self, *_: object) -> None:
        raise BadFile("it has a document type (<!DOCTYPE>), which is not read. CVAT writes none: remove it")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name)
        if len(self._path) > 32:
            raise BadFile("its elements are nested more than 32 deep")
        if len(self._path) == 1 and name != "annotations":
            raise BadFile(f"its first element is <{name}>, not CVAT's <annotations>")
        if name == "track":
            self.past_meta = True
            self._tracks += 1
            if "task_id" in attributes:
                raise BadFile("it is the export of a whole project. Export each task, or each job, by itself")
            self._track = attributes
        elif name == "image":
            raise BadFile("it is an export `CVAT for images`. Export the task as `CVAT for video 1.1`")
        elif self._track is not None and self._path[-2] == "track":
            self._shape(name, attributes)

    def _shape(self, name: str, attributes: Mapping[str, str]) -> None:
        if name in _OTHER_SHAPES:
            raise BadFile(f"it has a <{name}>, and only boxes are read. Draw rectangles, or delete the other shapes")
        if name != "box":
            return
        track = self._track or {}
        gone = attributes.get("outside", "0") == "1"
        box = [real_number(_needed(attributes, side, "box"), side) for side in _SIDES]
        self.lines.add(
            video="",
            # Without ids, the n-th <track> is the n-th object.
            track=track.get("id", str(self._tracks)),
            label=_needed(track, "label", "track"),
            frame=whole_number(_needed(attributes, "frame", "box"), "frame"),
            box=(0.0, 0.0, 1.0, 1.0) if gone else box,
            gone=gone,
            line=self._expat.CurrentLineNumber,
        )

    def _end(self, name: str) -> None:
        self._path.pop()
        if name == "track":
            self._track = None
        elif name == "meta":
            self.past_meta = True

    def _text(self, text: str) -> None:
        if tuple(self._path[:2]) == _META and len(self._path) <= 5:
            path = tuple(self._path)
            self._texts[path] = (self._texts.get(path, "") + text)[:_MOST_TEXT]


def _needed(attributes: Mapping[str, str], name: str, element: str) -> str:
    if name not in attributes:
        raise BadFile(f"a <{element}> has no `{name}`")
    return attributes[name]

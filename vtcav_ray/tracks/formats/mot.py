"""MOTChallenge: a text file per sequence, with a line per box, and `seqinfo.ini` beside its folder.

    SEQUENCE/gt/gt.txt      frame,id,left,top,width,height,considered,class,visibility
    SEQUENCE/det/det.txt    frame,-1,left,top,width,height,confidence[,-1,-1,-1]
    SEQUENCE.txt            frame,id,left,top,width,height,confidence,-1,-1,-1     (results of a tracker)
    SEQUENCE/seqinfo.ini    frameRate, seqLength, imWidth, imHeight

As published (arXiv 1603.00831), frames, ids and pixels are counted from 1: the upper left pixel is (1, 1). `considered`
is 0 for boxes to ignore, which are left out. Ids of -1 are detections that nobody has linked. The classes 1 to 13 are
MOTChallenge's; `labels.txt` beside gt.txt, as CVAT writes it, or `tracks.names` give others.
"""

from __future__ import annotations

import configparser
import posixpath
from collections.abc import Iterator, Sequence
from decimal import Context, Decimal, InvalidOperation

import numpy as np

from vtcav_ray.registry import TRACK_FORMATS
from vtcav_ray.text.name_lists import BadNames, decoded
from vtcav_ray.text.name_lists import lines_of as split_lines
from vtcav_ray.tracks.formats.base import (
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
from vtcav_ray.tracks.formats.text_lines import lines_of

CLASSES = (
    "pedestrian", "person on vehicle", "car", "bicycle", "motorbike", "non motorized vehicle", "static person",
    "distractor", "occluder", "occluder on the ground", "occluder full", "reflection", "crowd",
)  # fmt: skip
UNNAMED = "object"  # the label of boxes without a class
_TRUTH, _DETECTIONS, _NAMES, _INFO = "gt.txt", "det.txt", "labels.txt", "seqinfo.ini"
_FOLDERS = ("gt", "det")
_MOST_SIDE_BYTES = 1 << 20
# Decimal arithmetic: a box that was written as text and is read again has the same float32 numbers. See `written`.
_EXACT = Context(prec=80)


def written(box: Sequence[np.float32]) -> tuple[str, str, str, str]:
    """Return a box x1, y1, x2, y2 (float32, pixels from 0) as left, top, width and height, exactly."""
    x1, y1, x2, y2 = (Decimal(str(number)) for number in box)
    numbers = (_EXACT.add(x1, 1), _EXACT.add(y1, 1), _EXACT.subtract(x2, x1), _EXACT.subtract(y2, y1))
    left, top, width, height = (f"{number:f}" for number in numbers)
    return left, top, width, height


@TRACK_FORMATS.register("mot")
class Mot(TrackFormat):
    """A text file per sequence. A folder may hold `gt/gt.txt`, or else `det/det.txt`."""

    one_video = True

    def video_of(self, path: str) -> str | None:
        folder, name = posixpath.split(path)
        if not name.endswith(".txt") or name == _NAMES:
            return None
        if posixpath.basename(folder) in _FOLDERS:
            return posixpath.dirname(folder) if name in (_TRUTH, _DETECTIONS) else None
        return folder if name in (_TRUTH, _DETECTIONS) else without_ending(path)

    def rank(self, path: str) -> int:
        return int(posixpath.basename(path) == _DETECTIONS)

    def read(self, file: TrackFile) -> Iterator[Piece]:
        declared = _declared(file)
        truth = posixpath.basename(file.path) == _TRUTH
        own = self._class_names(file)
        lines = Lines()
        for number, text in lines_of(file):
            try:
                self._add(lines, text, number, own, truth)
            except BadFile as error:
                raise BadFile(f"line {number}: {error}") from error
            if lines.full:
                yield lines.take()
        last = lines.take()
        yield Piece(last.lines, {"": declared})

    def _add(self, lines: Lines, text: str, number: int, own: Sequence[str], truth: bool) -> None:
        if not text.strip():
            return
        cells = [cell.strip() for cell in text.split(",")]
        if len(cells) < 6:
            raise BadFile(
                f"{text.strip()[:80]!r} has {len(cells)} numbers with commas between them, and needs at least 6: "
                "frame, id, left, top, width, height"
            )
        frame = whole_number(cells[0], "frame")
        if frame < 1:
            raise BadFile(f"the frame {frame}: MOTChallenge counts frames from 1")
        track = whole_number(cells[1], "id")
        confidence = real_number(cells[6], "confidence") if len(cells) > 6 else 1.0
        if truth and confidence == 0:
            return
        kind = whole_number(cells[7], "class") if truth and len(cells) > 7 else -1
        lines.add(
            video="",
            track=str(track) if track >= 0 else None,
            label=self.class_name(kind, own) if kind > 0 else self._unnamed(),
            frame=frame - 1,
            box=_box(cells[2:6]),
            confidence=min(max(confidence, 0.0), 1.0),
            line=number,
        )

    def _unnamed(self) -> str:
        return self.names[0] if self.names is not None and len(self.names) == 1 else UNNAMED

    def _class_names(self, file: TrackFile) -> Sequence[str]:
        if self.names is not None or (data := file.beside(_NAMES, _MOST_SIDE_BYTES)) is None:
            return CLASSES
        try:
            return [name for line in split_lines(decoded(data)) if (name := line.strip())]
        except BadNames as error:
            raise BadFile(f"{_NAMES} beside it {error}") from error


def _box(cells: Sequence[str]) -> tuple[float, float, float, float]:
    try:
        left, top, width, height = (Decimal(cell) for cell in cells)
    except InvalidOperation as error:
        raise BadFile(f"the box {', '.join(cells)[:80]!r} is not of four numbers") from error
    if not all(number.is_finite() and abs(number) < 10**9 for number in (left, top, width, height)):
        raise BadFile(f"the box {', '.join(cells)[:80]!r} is not finite")
    x1, y1 = _EXACT.subtract(left, 1), _EXACT.subtract(top, 1)
    return float(x1), float(y1), float(_EXACT.add(x1, width)), float(_EXACT.add(y1, height))


def _declared(file: TrackFile) -> Declared:
    """Read seqinfo.ini, beside the file or beside its folder `gt` or `det`."""
    up = posixpath.basename(posixpath.dirname(file.path)) in _FOLDERS
    data = file.beside(f"../{_INFO}" if up else _INFO, _MOST_SIDE_BYTES)
    if data is None:
        return Declared()
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(decoded(data), _INFO)
        found = {key.lower(): value for key, value in parser["Sequence"].items()}
    except (configparser.Error, KeyError, BadNames) as error:
        said = " ".join(str(error).split())
        raise BadFile(f"{_INFO} of its sequence is not an INI file with a section [Sequence]: {said}") from error
    numbers = {name: _positive(found, name) for name in ("framerate", "seqlength", "imwidth", "imheight")}
    rate = numbers["framerate"]
    length, width, height = (
        None if numbers[name] is None else int(numbers[name] or 0) for name in ("seqlength", "imwidth", "imheight")
    )
    return Declared(width, height, rate, length)


def _positive(found: dict[str, str], name: str) -> float | None:
    if name not in found:
        return None
    try:
        number = real_number(found[name], name)
    except BadFile as error:
        raise BadFile(f"{_INFO} of its sequence: {error}") from error
    if number <= 0:
        raise BadFile(f"{_INFO} of its sequence: `{name}` is {number:g}, and must be positive")
    return number

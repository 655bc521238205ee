"""What a reader of tracks returns: one line per box, and what a file says about its videos.

A reader streams its file and never judges whether lines fit the video: `vtcav_ray.tracks.given` does that once the
video is open. Files come from other people, so every reader has limits and raises `BadFile` or notes a `Problem`.
"""

from __future__ import annotations

import math
import posixpath
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Literal

import pyarrow as pa

# One box of one object in one frame. Either `frame` or `time` is set.
LINES = pa.schema(
    [
        ("video", pa.string()),  # the file's own name of the video
        ("track", pa.string()),  # the file's own name of the object; null: boxes are not linked yet
        ("label", pa.string()),
        ("frame", pa.int64()),  # index into the video, from 0
        ("time", pa.float64()),  # seconds since the video's first frame
        ("x1", pa.float64()),
        ("y1", pa.float64()),
        ("x2", pa.float64()),
        ("y2", pa.float64()),
        ("confidence", pa.float64()),  # null: 1
        ("gone", pa.bool_()),  # the object has left the picture at this frame; the box has no meaning
        ("line", pa.int64()),  # where the box is in the file, for messages
    ]
)
MOST_FILE_BYTES = 4 << 30  # of one file
MOST_LINES_OF_A_VIDEO = 5_000_000
_PIECE_LINES = 65_536
_MOST_NAME = 1_000  # characters of a video's, a track's or a label's name
Linking = Literal["none", "keyframes", "all"]


class BadFile(ValueError):
    """A file of tracks can't be read. The message names the place in the file, and says what is wrong there."""


@dataclass(frozen=True)
class Declared:
    """What a file says about a video; None: nothing.

    Attributes:
        width, height: of the frames that the boxes were drawn on, pixels.
        fps: frames per second.
        num_frames: of the whole video.
    """

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    num_frames: int | None = None


@dataclass(frozen=True)
class Problem:
    """A line that can't be used, so that its video can't be used either."""

    video: str
    message: str


@dataclass(frozen=True)
class Piece:
    """A part of a file: `LINES` of some videos, what the file says about videos, and lines that can't be used."""

    lines: pa.Table
    declared: Mapping[str, Declared] = field(default_factory=dict)
    problems: Sequence[Problem] = ()


class TrackFile(ABC):
    """An open file of tracks.

    Attributes:
        name: its URL, for messages.
        path: below the source, or its name if the source is this file.
    """

    name: str
    path: str

    @abstractmethod
    def open(self) -> IO[bytes]:
        """Open the file from its start, seekable if the format needs that."""

    @abstractmethod
    def beside(self, path: str, most: int) -> bytes | None:
        """Return a small file, named relative to this file's folder; None if there is none.

        Raises:
            BadFile: it has more than `most` bytes.
        """


class TrackFormat(ABC):
    """A format of files with tracks. One instance per process reads all files.

    Attributes:
        one_video: each file has one video, which `video_of` names; False: the lines name their videos.
        relative: boxes are shares of the frame's width and height; False: pixels.
        linking: which frames between two boxes of a track get an interpolated box: `none`; `keyframes`: if the boxes
            are neighbouring keyframes; `all`: every one until the object is `gone`.
        unit: what `LINES`' column `line` counts, for messages.
        by_label: an object with several labels in one frame gives a track for each of them.
    """

    one_video: bool = False
    unit: str = "line"
    by_label: bool = False
    relative: bool = False
    linking: Linking = "none"

    def __init__(self, names: Sequence[str] | None = None) -> None:
        """Create a reader.

        Args:
            names: of the classes 1, 2, ... for formats that number them (`tracks.names`); None: the format's own.
        """
        self.names = names

    @abstractmethod
    def video_of(self, path: str) -> str | None:
        """Return the name of the video whose tracks a file has, from its path below the source.

        Returns:
            None: the file is none of this format. If several videos share the file: any text.
        """

    def rank(self, path: str) -> int:
        """Return which of several files with the tracks of one video is read: the one with the lowest rank."""
        return 0

    @abstractmethod
    def read(self, file: TrackFile) -> Iterator[Piece]:
        """Read a file in pieces. With `one_video`, the lines' column `video` is not used.

        Raises:
            BadFile: the file can't be read, or what is wrong is of no single video.
        """

    def names_inside(self, file: TrackFile) -> Sequence[str]:
        """Return names of a file's video that are written in the file, for a file whose path names no video."""
        return ()

    def class_name(self, number: int, own: Sequence[str] = ()) -> str:
        """Return the name of class `number`, from 1: of `tracks.names`, else of `own`, else the number.

        Raises:
            BadFile: `tracks.names` has fewer names.
        """
        known = self.names if self.names is not None else own
        if 0 < number <= len(known):
            return known[number - 1]
        if self.names is not None:
            raise BadFile(f"it has class {number}, and `tracks.names` has {len(self.names)} names")
        return str(number)


class Lines:
    """Lines under construction, as columns."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in LINES.names}
        self.problems: list[Problem] = []

    def __len__(self) -> int:
        return len(self._columns["line"])

    @property
    def full(self) -> bool:
        """Whether there are enough lines for a piece."""
        return len(self) >= _PIECE_LINES

    def add(
        self,
        *,
        video: str,
        label: str,
        box: Sequence[float],
        line: int,
        track: str | None = None,
        frame: int | None = None,
        time: float | None = None,
        confidence: float | None = None,
        gone: bool = False,
    ) -> None:
        """Add a line.

        Raises:
            BadFile: a number is not finite or out of range, the box has no area, or a name is too long.
        """
        check_box(box)
        if frame is not None and not 0 <= frame < 2**31:
            raise BadFile(f"the frame {frame} is none: frames are counted from 0, and no video has that many")
        if time is not None and not 0 <= time < 1e7:
            raise BadFile(f"the time {time} is no number of seconds from 0 on")
        if confidence is not None and not math.isfinite(confidence):
            raise BadFile(f"the confidence {confidence} is not finite")
        if not label or max(len(text) for text in (video, label, track or "")) > _MOST_NAME:
            raise BadFile(f"a name is empty or has more than {_MOST_NAME:,} characters")
        values = (video, track, label, frame, time, *box, confidence, gone, line)
        for column, value in zip(self._columns.values(), values, strict=True):
            column.append(value)

    def take(self) -> Piece:
        """Return the lines and problems so far, and start again without any."""
        piece = Piece(pa.table(self._columns, schema=LINES), problems=tuple(self.problems))
        self.__init__()  # type: ignore[misc]
        return piece


def check_box(box: Sequence[float]) -> None:
    """Raise BadFile if a box x1, y1, x2, y2 is not finite, or has no area."""
    if not all(math.isfinite(number) and abs(number) < 1e9 for number in box):
        raise BadFile(f"the box {shown(box)} is not finite")
    if box[2] <= box[0] or box[3] <= box[1]:
        raise BadFile(f"the box {shown(box)} (x1, y1, x2, y2) has no area")


def shown(box: Sequence[float]) -> str:
    """Return a box as text, for messages."""
    return ", ".join(f"{number:g}" for number in box)


def whole_number(text: str, what: str) -> int:
    """Return a whole number, also if it is written as `12.0`.

    Raises:
        BadFile: it is none.
    """
    number = real_number(text, what)
    if number != int(number):
        raise BadFile(f"the {what} {text.strip()[:40]!r} is not a whole number")
    return int(number)


def real_number(text: str, what: str) -> float:
    """Return a finite number.

    Raises:
        BadFile: it is none.
    """
    try:
        number = float(text)
    except ValueError as error:
        raise BadFile(f"the {what} {text.strip()[:40]!r} is not a number") from error
    if not math.isfinite(number):
        raise BadFile(f"the {what} {text.strip()[:40]!r} is not finite")
    return number


def without_ending(path: str) -> str:
    """Return a path without the extension of its last part."""
    folder, name = posixpath.split(path)
    return posixpath.join(folder, name.rpartition(".")[0] or name)

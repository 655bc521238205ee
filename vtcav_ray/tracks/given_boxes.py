"""From the lines of one video to its boxes: frames, pixels, tracks, and interpolated boxes. Pure NumPy.

Lines that can't fit the video raise `InputError("annotation")`, which names the file and the line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray.errors import InputError
from vtcav_ray.tracks.formats.base import Declared, Linking, TrackFormat, shown
from vtcav_ray.tracks.given_link import link

KIND = "annotation"
_RATE_TOLERANCE = 0.01  # share of the frame rate: 29.97 is as good as 30
_LENGTH_TOLERANCE = 0.01  # share of the number of frames
_MOST_OUTSIDE = 0.1  # share of a video's boxes that may lie outside the frame
_NEIGHBOURS = 1.5  # keyframes are neighbours if they are at most this many times the smallest distance apart


@dataclass(frozen=True)
class GivenLines:
    """The lines of one video.

    Attributes:
        table: `vtcav_ray.tracks.formats.base.LINES`; the column `video` is not used.
        declared: what the file says about the video.
        where: the file, for messages.
        unit: what the file's boxes are numbered by: `line`, `row`.
    """

    table: pa.Table
    declared: Declared
    where: str
    unit: str = "line"

    @property
    def timed(self) -> bool:
        """Whether some boxes have a time, and not the number of a frame."""
        return bool(self.table["time"].null_count < self.table.num_rows)

    def at(self, line: int) -> str:
        """Return where a box is, for messages."""
        return f"{self.where}, {self.unit} {line}"


@dataclass(frozen=True)
class Size:
    """The video that lines belong to: pixels, frames per second, and seconds of each frame if its rate varies."""

    height: int
    width: int
    fps: float
    times: np.ndarray | None = None

    def frames_at(self, seconds: np.ndarray) -> np.ndarray:
        """Return the indices of the frames that are shown nearest to these times."""
        if self.times is None or not len(self.times):
            return np.round(seconds * self.fps).astype(np.int64)
        places = np.clip(np.searchsorted(self.times, seconds), 1, max(len(self.times) - 1, 1))
        beyond = seconds - float(self.times[-1])
        left = seconds - self.times[places - 1] <= self.times[np.minimum(places, len(self.times) - 1)] - seconds
        nearest = (places - left).astype(np.int64)
        after = np.round(beyond * self.fps).astype(np.int64)
        return np.where(after > 0, len(self.times) - 1 + after, nearest)


@dataclass(frozen=True)
class Boxes:
    """Boxes of one video, sorted by frame and track.

    Attributes:
        frames, tracks, labels: int64 [N]; tracks from 0, in the order of the file's ids; labels are places in `names`.
        boxes: float32 [N, 4] xyxy, pixels, inside the frame.
        confidence: float32 [N], in [0, 1].
        lines: int64 [N], for messages; of interpolated boxes, the line of the box before them.
        names: of the labels.
        outside: lines of boxes that were left out, since they lie outside the frame.
    """

    frames: np.ndarray
    tracks: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    confidence: np.ndarray
    lines: np.ndarray
    names: tuple[str, ...]
    outside: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, rows: np.ndarray) -> Boxes:
        """Return some of the boxes."""
        return Boxes(
            self.frames[rows],
            self.tracks[rows],
            self.labels[rows],
            self.boxes[rows],
            self.confidence[rows],
            self.lines[rows],
            self.names,
            self.outside,
        )

    def check_end(self, num_frames: int, given: GivenLines, video: str) -> None:
        """Raise InputError if a box is in a frame that the video does not have."""
        beyond = np.flatnonzero(self.frames >= num_frames)
        if len(beyond):
            frame, line = int(self.frames[beyond[0]]), int(self.lines[beyond[0]])
            raise InputError(
                KIND,
                f"{given.at(line)}: it is of frame {frame} (from 0), and {video} has {num_frames} frames. Were the "
                "tracks made at another frame rate, or of a longer file?",
            )


def boxes_of(
    given: GivenLines,
    size: Size,
    form: TrackFormat,
    video: str,
    *,
    stride: int = 1,
    classes: tuple[str, ...] | None = None,
) -> Boxes:
    """Return the boxes that the lines of a video describe.

    Args:
        given: its lines, with their file.
        size: of the open video.
        form: says how boxes are written and linked.
        video: its name, for messages.
        stride: interpolate in every `stride`-th frame of the video.
        classes: keep only these labels; None: all.

    Raises:
        InputError: `annotation`: the frame size or rate that the file states is not the video's; more than a tenth of
            the boxes lie outside the frame; or an object has two boxes in one frame.
    """
    _check_declared(given, size, video)
    table = given.table
    if classes is not None:
        table = table.filter(pc.is_in(table["label"], pa.array(classes, pa.string())))
    x = {name: table[name].to_numpy() for name in ("x1", "y1", "x2", "y2", "gone", "line")}
    boxes = np.stack([x["x1"], x["y1"], x["x2"], x["y2"]], axis=1).astype(np.float64)
    if form.relative:
        boxes = boxes * (size.width, size.height, size.width, size.height)
    names, labels = _numbered(table["label"])
    confidence = pc.fill_null(table["confidence"], 1.0).to_numpy()
    frames = _frames(table, size)
    clipped = np.clip(boxes.astype(np.float32), 0, np.array([size.width, size.height] * 2, np.float32))
    gone = x["gone"].astype(bool)
    outside = ((clipped[:, 2] <= clipped[:, 0]) | (clipped[:, 3] <= clipped[:, 1])) & ~gone
    _check_outside(outside, ~gone, boxes, x["line"], given, size, video)
    tracks = _tracks(table, frames, labels, boxes, form)
    keep = np.flatnonzero(~outside)
    keep = keep[np.lexsort((frames[keep], tracks[keep]))]
    found = Boxes(
        frames[keep], tracks[keep], labels[keep], clipped[keep], np.clip(confidence, 0, 1).astype(np.float32)[keep],
        x["line"][keep], names, tuple(x["line"][outside].tolist()),
    )  # fmt: skip
    _check_single(found, given)
    found = _interpolated(found, gone[keep], form.linking, stride)
    return found.take(np.lexsort((found.tracks, found.frames)))


def _check_declared(given: GivenLines, size: Size, video: str) -> None:
    declared = given.declared
    if (declared.width or size.width, declared.height or size.height) != (size.width, size.height):
        raise InputError(
            KIND,
            f"{given.where} is for frames of {declared.width}x{declared.height} pixels, and {video} has "
            f"{size.width}x{size.height}. Give the file that the tracks were drawn on.",
        )
    if declared.fps is not None and abs(declared.fps - size.fps) > _RATE_TOLERANCE * size.fps:
        raise InputError(
            KIND,
            f"{given.where} is for {declared.fps:g} frames per second, and {video} has {size.fps:.5g}: frames can't be "
            "told apart by their numbers. Give the file that the tracks were made for.",
        )


def check_length(given: GivenLines, num_frames: int, video: str) -> None:
    """Raise InputError if a file states another number of frames than the video has."""
    stated = given.declared.num_frames
    if stated is not None and abs(stated - num_frames) > max(1, _LENGTH_TOLERANCE * num_frames):
        raise InputError(
            KIND,
            f"{given.where} is for {stated:,} frames, and {video} has {num_frames:,}: their numbers may mean other "
            "frames. Give the file that the tracks were made for.",
        )


def _frames(table: pa.Table, size: Size) -> np.ndarray:
    if table["time"].null_count == table.num_rows:
        return table["frame"].to_numpy().astype(np.int64)
    seconds = pc.fill_null(table["time"], 0.0).to_numpy()
    frames = pc.fill_null(table["frame"], 0).to_numpy().astype(np.int64)
    return np.where(table["time"].is_null().to_numpy(), frames, size.frames_at(seconds))


def _check_outside(
    outside: np.ndarray,
    there: np.ndarray,
    boxes: np.ndarray,
    lines: np.ndarray,
    given: GivenLines,
    size: Size,
    video: str,
) -> None:
    if outside.sum() > _MOST_OUTSIDE * max(int(there.sum()), 1):
        first = int(outside.argmax())
        raise InputError(
            KIND,
            f"{given.at(int(lines[first]))}: the box {shown(boxes[first])} lies outside the frame of {video}, "
            f"{size.width}x{size.height}, and so do {int(outside.sum()):,} of its {int(there.sum()):,} boxes. Were "
            "they drawn on another size?",
        )


def _numbered(column: pa.ChunkedArray) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the distinct texts in the order of their first line, and the place of each row's text among them."""
    coded = column.combine_chunks().dictionary_encode()
    return tuple(coded.dictionary.to_pylist()), coded.indices.to_numpy().astype(np.int64)


def _tracks(
    table: pa.Table, frames: np.ndarray, labels: np.ndarray, boxes: np.ndarray, form: TrackFormat
) -> np.ndarray:
    """Number the tracks from 0: in the order of whole numbers if all ids are, otherwise of their first lines."""
    ids = pc.fill_null(table["track"], "")
    names, codes = _numbered(ids)
    order = list(range(len(names)))
    if all(name.isdecimal() and len(name) < 10 for name in names if name):
        order.sort(key=lambda code: (int(names[code] or -1), code))
    place = np.empty(len(names), np.int64)
    place[order] = np.arange(len(names))
    tracks = place[codes]
    unknown = np.flatnonzero(table["track"].is_null().to_numpy())
    if len(unknown):
        linked = link(frames[unknown], labels[unknown], boxes[unknown], reach_of(frames))
        tracks[unknown] = len(names) + linked
    if form.by_label:
        _, tracks = np.unique(tracks * (labels.max(initial=0) + 1) + labels, return_inverse=True)
    return tracks


def reach_of(frames: np.ndarray) -> int:
    """Return the largest distance, in frames, of two neighbouring keyframes of a video."""
    apart = np.diff(np.unique(frames))
    return int(_NEIGHBOURS * apart.min()) if len(apart) else 0


def _check_single(found: Boxes, given: GivenLines) -> None:
    """Raise InputError if a track has two boxes in a frame. The boxes are sorted by track and frame."""
    twice = np.flatnonzero((np.diff(found.tracks) == 0) & (np.diff(found.frames) == 0))
    if len(twice):
        first, second = (int(found.lines[twice[0] + step]) for step in (0, 1))
        raise InputError(
            KIND,
            f"{given.at(second)}: the object of {given.unit} {first} has a second box in frame "
            f"{int(found.frames[twice[0]])} (from 0). Give each object its own id.",
        )


def _interpolated(found: Boxes, gone: np.ndarray, linking: Linking, stride: int) -> Boxes:
    """Return the boxes with interpolated ones between them, and without the marks that an object is gone.

    Without linking, boxes are returned as they are. Otherwise they are computed in every `stride`-th frame of the
    video, so that a track has no irregular steps.
    """
    if linking == "none" or not len(found):
        return found.take(np.flatnonzero(~gone))
    reach = 2**40 if linking == "all" else reach_of(found.frames)
    ends = np.append(found.frames[1:], 0)
    follows = np.append(found.tracks[1:] == found.tracks[:-1], False) & (ends - found.frames <= reach) & ~gone
    rows, frames, shares = [], [], []
    for row in np.flatnonzero(~gone).tolist():
        start = int(found.frames[row])
        end = int(ends[row]) if follows[row] else start + 1
        grid = np.arange(-(-start // stride) * stride, end, stride)
        rows.append(np.full(len(grid), row))
        frames.append(grid)
        # Until it is gone, an object stays where it was seen last.
        moves = follows[row] and not gone[row + 1]
        shares.append((grid - start) / (end - start) if moves else np.zeros(len(grid)))
    row_N, frame_N, share_N = (np.concatenate(parts) for parts in (rows, frames, shares))
    next_N = np.minimum(row_N + 1, len(found) - 1)
    taken = found.take(row_N)
    boxes = found.boxes[row_N] + share_N[:, None] * (found.boxes[next_N] - found.boxes[row_N])
    confidence = found.confidence[row_N] + share_N * (found.confidence[next_N] - found.confidence[row_N])
    return Boxes(
        frame_N, taken.tracks, taken.labels, boxes.astype(np.float32), confidence.astype(np.float32), taken.lines,
        found.names, found.outside,
    )  # fmt: skip

"""A folder of labelled videos: its groups, a split that keeps groups together, and its frames, decoded once."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vtcav_ray.errors import InputError
from vtcav_ray.video.decode import iter_frames

INDEX, FRAMES = "index.json", "frames.npy"
SUFFIXES = frozenset({".avi", ".mkv", ".mov", ".mp4", ".webm"})


class DataError(ValueError):
    """The folder, the groups or the split can't be used. The message says how to fix it."""


@dataclass(frozen=True)
class LabelledClip:
    """One video of the folder.

    Attributes:
        uri: relative to the folder, `class/name.mp4`.
        label: its class, the name of its folder.
        group: clips of one group (a person, a scene) are on one side of every split.
    """

    uri: str
    label: str
    group: str


def list_clips(
    folder: Path, groups: Path | None = None, group_column: str = "group", pattern: str = ""
) -> list[LabelledClip]:
    """List `class/name` videos of a folder, sorted.

    Args:
        folder: with one folder per class.
        groups: CSV with the columns `uri` (as `class/name.mp4`) and `group_column`.
        group_column: column of `groups`.
        pattern: without `groups`, a regular expression that is searched in the file's name. The match (its first group,
            if it has one) names the clip's group. Empty: each clip is a group.

    Raises:
        DataError: there are no videos, or a video has no group.
    """
    uris = sorted(
        f"{path.parent.name}/{path.name}"
        for path in folder.glob("*/*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )
    if not uris:
        raise DataError(f"{folder} has no videos. Put them into one folder per class: {folder}/CLASS/NAME.mp4.")
    if groups is not None:
        named = _groups_of(groups, group_column)
        if missing := [uri for uri in uris if uri not in named]:
            raise DataError(f"{groups} has no line for {missing[0]} ({len(missing)} of {len(uris)} videos).")
        return [LabelledClip(uri, uri.split("/")[0], named[uri]) for uri in uris]
    if not pattern:
        return [LabelledClip(uri, uri.split("/")[0], uri) for uri in uris]
    found = {uri: re.search(pattern, uri.split("/")[1]) for uri in uris}
    if missing := [uri for uri, match in found.items() if match is None]:
        raise DataError(f"The pattern {pattern!r} is not in the name of {missing[0]} ({len(missing)} of {len(uris)}).")
    return [
        LabelledClip(uri, uri.split("/")[0], match[match.re.groups and 1])
        for uri, match in found.items()
        if match is not None
    ]


def _groups_of(path: Path, column: str) -> dict[str, str]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in ("uri", column) if name not in (reader.fieldnames or ())]:
            raise DataError(f"{path} has no column {missing[0]!r}; it has {', '.join(reader.fieldnames or ())}.")
        return {row["uri"]: row[column] for row in reader}


def split(
    clips: Sequence[LabelledClip], folds: int, fold: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the clips to train on and of those held out: one of `folds` parts.

    Groups stay together, and labels are balanced as far as that allows.

    Raises:
        DataError: there are fewer groups than folds, or a class has no clip on one side.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    labels, groups = [c.label for c in clips], [c.group for c in clips]
    if not 0 <= fold < folds:
        raise DataError(f"fold {fold} does not exist: give 0 to {folds - 1}.")
    if len(set(groups)) < folds:
        raise DataError(f"{len(set(groups))} groups can't be split into {folds} folds. Use fewer folds.")
    parts = list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(labels, labels, groups))
    train, held_out = parts[fold]
    for name, side in (("to train on", train), ("held out", held_out)):
        if missing := sorted(set(labels) - {labels[i] for i in side}):
            raise DataError(f"The class {missing[0]} has no clip {name} in fold {fold}. Use fewer folds.")
    return train, held_out


@dataclass(frozen=True, eq=False)
class DecodedClips:
    """All frames of all clips that decode, RGB.

    Attributes:
        uris: of the clips, in the order of the frames.
        frames_NHW3: uint8 [sum of lengths, h, w, 3].
        starts: int64 [clips + 1], where each clip's frames begin.
        left_out: uri -> why the video is not used.
    """

    uris: tuple[str, ...]
    frames_NHW3: NDArray[np.uint8]
    starts: NDArray[np.int64]
    left_out: dict[str, str]

    def __getitem__(self, number: int) -> NDArray[np.uint8]:
        """Return one clip's frames uint8 [T, h, w, 3]."""
        return self.frames_NHW3[self.starts[number] : self.starts[number + 1]]


def read_frames(cache: Path) -> DecodedClips:
    """Read what `decode_clips` wrote, memory-mapped."""
    written = json.loads((cache / INDEX).read_text())
    starts = np.cumsum([0, *written["lengths"].values()])
    return DecodedClips(tuple(written["lengths"]), np.load(cache / FRAMES, mmap_mode="r"), starts, written["left_out"])


def decode_clips(folder: Path, clips: Sequence[LabelledClip], short_side: int, cache: Path) -> DecodedClips:
    """Decode every clip once, as the stage `clips` does for a class example: shrunk to a short side, never enlarged.

    A video that can't be decoded, or has another shape than the first, is left out.

    Args:
        folder: of the clips.
        clips: in the order of the result.
        short_side: pixels.
        cache: folder for the frames, which are memory-mapped. It is read if it was written for the same files.

    Raises:
        DataError: no video can be decoded.
    """
    files = [[c.uri, (folder / c.uri).stat().st_size, (folder / c.uri).stat().st_mtime_ns] for c in clips]
    key = {"files": files, "short_side": short_side}
    index = cache / INDEX
    if not index.is_file() or json.loads(index.read_text())["key"] != key:
        index.unlink(missing_ok=True)  # so that a killed run leaves no index beside other frames
        decoded, left_out = _decode_all(folder, clips, short_side)
        cache.mkdir(parents=True, exist_ok=True)
        np.save(cache / FRAMES, np.concatenate(list(decoded.values())))
        lengths = {uri: len(frames_THW3) for uri, frames_THW3 in decoded.items()}
        index.write_text(json.dumps({"key": key, "lengths": lengths, "left_out": left_out}))
    return read_frames(cache)


def _decode_all(
    folder: Path, clips: Sequence[LabelledClip], short_side: int
) -> tuple[dict[str, NDArray[np.uint8]], dict[str, str]]:
    decoded: dict[str, NDArray[np.uint8]] = {}
    left_out: dict[str, str] = {}
    shape: tuple[int, ...] | None = None
    for clip in clips:
        try:
            frames = np.stack([shrunk(frame, short_side) for _, frame in iter_frames(str(folder / clip.uri))])
        except InputError as error:
            left_out[clip.uri] = str(error)
            continue
        shape = shape or frames.shape[1:]
        if frames.shape[1:] == shape:
            decoded[clip.uri] = frames
        else:
            left_out[clip.uri] = (
                f"its frames have {frames.shape[1:3]} pixels after resizing, the first video's {shape[:2]}"
            )
    if not decoded:
        raise DataError(f"No video of {folder} can be decoded; {clips[0].uri}: {left_out[clips[0].uri]}")
    return decoded, left_out


def shrunk(frame: NDArray[np.uint8], short_side: int) -> NDArray[np.uint8]:
    """Return a frame uint8 [H, W, 3] with at most this short side, as the stage `clips` stores it."""
    height, width = frame.shape[:2]
    ratio = min(short_side / min(height, width), 1.0)
    size = (max(round(width * ratio), 1), max(round(height * ratio), 1))
    return frame if ratio == 1 else np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)

"""The index of a video file: the time stamp of every frame, read from its packets without decoding them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

# Codecs in which each packet is one shown frame, so a packet's rank by time stamp is its frame's index.
SEEKABLE = frozenset({"h264", "hevc", "vp9", "av1", "mjpeg"})


@dataclass(frozen=True)
class PacketIndex:
    """The frames of a video in presentation order.

    Attributes:
        stamps_T: int64 [T], rising time stamps in the stream's time base.
        keyframes: int64, the indices of the keyframes, rising; the first is 0.
    """

    stamps_T: np.ndarray
    keyframes: np.ndarray

    def __len__(self) -> int:
        return len(self.stamps_T)

    def rank(self, stamp: int | None) -> int | None:
        """Return the index of the frame with a time stamp; None if no frame has it."""
        if stamp is None:
            return None
        place = int(np.searchsorted(self.stamps_T, stamp))
        return place if place < len(self) and self.stamps_T[place] == stamp else None

    def keyframe(self, index: int) -> int:
        """Return the last keyframe up to a frame."""
        return int(self.keyframes[int(np.searchsorted(self.keyframes, index, side="right")) - 1])


def read_index(packets: Iterable[Any], most: int, promised: int) -> PacketIndex | None:
    """Read the index from PyAV packets of one stream; None if their order can't be trusted.

    Args:
        packets: in the order of the file.
        most: number of frames after which the rest is not listed: a million packets may claim to be frames.
        promised: number of frames that the container states; 0: it states none.
    """
    stamps, keys = array("q"), array("b")
    for packet in packets:
        if len(stamps) == most:
            break
        if packet.size == 0:
            continue
        if packet.pts is None or packet.is_corrupt or packet.is_discard:
            return None
        stamps.append(packet.pts)
        keys.append(packet.is_keyframe)
    if not stamps or not keys[0] or (promised and len(stamps) != min(promised, most)):
        return None
    given_T = np.frombuffer(stamps, np.int64)
    order = np.argsort(given_T, kind="stable")
    stamps_T = given_T[order]
    if stamps_T[0] != given_T[0] or (np.diff(stamps_T) == 0).any():
        return None  # frames before the first keyframe don't decode, and equal stamps have no order
    return PacketIndex(stamps_T, np.flatnonzero(np.frombuffer(keys, np.int8)[order]))

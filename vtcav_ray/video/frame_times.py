"""Frame rates from time stamps: the rate that a container states is often wrong where the rate varies.

WebM, Matroska and MPEG-TS state no rate, or a nominal one, and FFmpeg estimates it from the first frames. So all that
is called time or speed comes from the frames' own time stamps. Frames themselves are still counted, not timed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A stated rate this close to the mean rate is kept: rounded time stamps and one lost frame are no other rate.
_SAME_RATE = 0.02
# A video in which no frame is further than this from its place at a constant rate has a constant rate, in frames.
_CONSTANT = 1.5


@dataclass(frozen=True)
class FrameTimes:
    """The rate of a video.

    Attributes:
        fps: mean frames per second.
        seconds: float64 [T], the time of each frame since the first, rising. None: frame i is at i / fps.
    """

    fps: float
    seconds: np.ndarray | None = None


def frame_times(stamps: Sequence[int | None], unit: float, stated: float) -> FrameTimes:
    """Return the rate from the time stamps of all frames, in presentation order.

    Args:
        stamps: in `unit` seconds; None: the container gives the frame none.
        unit: the stream's time base, seconds.
        stated: the container's rate, frames per second. It is kept if the time stamps agree, or are not usable.
    """
    if len(stamps) < 3 or any(stamp is None for stamp in stamps):
        return FrameTimes(stated)
    given = np.array(stamps, np.int64)
    ticks = given if (np.diff(given) > 0).all() else _rising(given)
    if ticks is None:
        return FrameTimes(stated)
    seconds = (ticks - ticks[0]) * unit
    mean = (len(seconds) - 1) / float(seconds[-1])
    fps = stated if abs(mean / stated - 1) <= _SAME_RATE else mean
    # The place of each frame is known to one unit: at 1/1000 s and 240 fps that is a quarter of a frame.
    off = np.abs(seconds * mean - np.arange(len(seconds))).max()
    return FrameTimes(fps, None if off <= _CONSTANT + unit * mean else seconds)


def seconds_of_frames(stamps: Sequence[int | None], unit: float, fps: float) -> np.ndarray:
    """Return the time of each frame since the first, in seconds: float64 [T], rising.

    Unlike i / fps, it does not drift over a long video whose container states a rate that is slightly wrong.

    Args:
        stamps, unit: as for `frame_times`.
        fps: the rate to use if the time stamps are not usable.
    """
    if len(stamps) > 1 and unit > 0 and all(stamp is not None for stamp in stamps):
        given = np.array(stamps, np.int64)
        ticks = given if (np.diff(given) > 0).all() else _rising(given)
        if ticks is not None:
            return (ticks - ticks[0]) * unit
    return np.arange(len(stamps)) / fps


def _rising(ticks: np.ndarray) -> np.ndarray | None:
    """Return time stamps that rise; None if most do not.

    AVI gives frames that the codec reorders the time stamps of each other, so sorted ones are right. At a splice of a
    transport stream, time jumps back; there, a frame lasts as long as most do.
    """
    ordered = np.sort(ticks)
    between = np.diff(ordered)
    if between.min() > 0 and between.max() <= 2 * between.min():
        return ordered
    steps = np.diff(ticks)
    forward = steps > 0
    if forward.mean() < 0.5:
        return None
    return np.concatenate(([0], np.where(forward, steps, int(np.median(steps[forward]))).cumsum()))

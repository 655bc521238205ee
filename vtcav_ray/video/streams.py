"""Choose the video stream of a file as a player does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from av.stream import Disposition

# A cover, or a chapter's picture. FFmpeg gives these as video streams of one frame.
_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails
_SECONDARY = Disposition.still_image | Disposition.dependent  # a part of another stream, or a still beside it
_PICTURE_CODECS = frozenset({"mjpeg", "png", "bmp", "tiff", "webp", "jpeg2000", "jpegls", "gif", "targa", "ppm"})


def is_picture(stream: Any) -> bool:
    """Return whether a PyAV video stream is an attached picture, such as a cover."""
    return bool(stream.disposition & _PICTURES)


def choose_stream(streams: Sequence[Any]) -> Any | None:
    """Return the stream that a player shows: never an attached picture, first a default one, then the largest.

    Streams that this FFmpeg can't decode, and those of one frame, come last. Beside a film, a stream of pictures
    (MJPEG, PNG) is a cover that the file does not mark as such. Of equal streams, the first is taken.

    Args:
        streams: PyAV's video streams of one file.

    Returns:
        None if the file has no video stream besides attached pictures.
    """
    videos = [stream for stream in streams if not is_picture(stream)]
    return max(videos, key=lambda stream: (*_preference(stream), -stream.index), default=None)


def _preference(stream: Any) -> tuple[bool, bool, bool, bool, bool, int]:
    context = stream.codec_context
    return (
        context is not None,
        not stream.disposition & _SECONDARY,
        stream.frames != 1,
        bool(stream.disposition & Disposition.default),
        context is not None and context.name not in _PICTURE_CODECS,
        context.width * context.height if context is not None else 0,
    )


def describe_choice(streams: Sequence[Any], chosen: Any) -> str | None:
    """Return which of several video streams was chosen, as `stream 1 of 0, 1: h264, 640x360`; None if there is one."""
    videos = [stream for stream in streams if not is_picture(stream)]
    if len(videos) < 2:
        return None
    context = chosen.codec_context
    indices = ", ".join(str(stream.index) for stream in videos)
    return f"stream {chosen.index} of {indices}: {context.name}, {context.width}x{context.height}"

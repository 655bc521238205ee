"""How many bytes an AVI, Matroska, WebM or ASF file has by its own head. MP4: see `vtcav_ray.video.mp4_boxes`."""

from __future__ import annotations

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # its File Properties Object


def declared_size(head: bytes) -> int | None:
    """Return the number of bytes that a file has by its own head; None if it states none.

    Args:
        head: its first 64 KB, or all of it if it has fewer.
    """
    if head[:4] == b"RIFF" and len(head) >= 12:
        size = int.from_bytes(head[4:8], "little")
        return size + 8 if 0 < size < 0xFFFFFFFF else None  # a recorder that was stopped leaves 0
    if head.startswith(_EBML):
        return _matroska(head)
    if head.startswith(_ASF) and len(head) >= 24:
        at = head.find(_ASF_FILE)
        if at >= 0 and len(head) >= at + 48:
            return int.from_bytes(head[at + 40 : at + 48], "little") or None
        return int.from_bytes(head[16:24], "little")  # of the header object alone
    return None


def _matroska(head: bytes) -> int | None:
    at = head.find(_SEGMENT)
    if at < 0:
        return None
    first = at + len(_SEGMENT)
    width = 9 - head[first].bit_length() if len(head) > first else 9
    if width > 8 or len(head) < first + width:
        return None
    size = int.from_bytes(head[first : first + width], "big") & ((1 << 7 * width) - 1)
    return first + width + size if size != (1 << 7 * width) - 1 else None  # all ones: a live stream states none

"""Recognise encrypted videos. FFmpeg decodes them to noise, or reports broken data, but never says why."""

from __future__ import annotations

import re
from typing import Any

from vtcav_ray.video.mp4_boxes import sample_entry

_WHAT = "is encrypted ({}). Decrypt it, or take a copy without copy protection"
# Objects of an ASF header: Content Encryption, Extended Content Encryption, Advanced Content Encryption.
_ASF_OBJECTS = tuple(
    bytes.fromhex(guid)
    for guid in (
        "fbb3112223bdd211b4b700a0c955fc6e",
        "14e68a292226174cb935dae07ee9289c",
        "338505438169e6499b74ad12cb86d58c",
    )
)
_MP4_ENTRIES = (b"encv", b"drmi")
_TS_PACKET = 188
_SCRAMBLED_SHARE = 0.2  # of the packets with payload


def encrypted_head(format_name: str, head: bytes, stream: Any) -> str | None:
    """Return why a video is encrypted, as the rest of a sentence, from what its container states; None if it is not.

    Args:
        format_name: of FFmpeg's demuxer.
        head: the file's first 64 KB.
        stream: PyAV's video stream.
    """
    if format_name == "asf" and any(guid in head for guid in _ASF_OBJECTS):
        return _WHAT.format("Windows Media DRM")
    if "enc_key_id" in stream.metadata:
        return _WHAT.format("Matroska or WebM encryption")
    if format_name == "mpeg" and _scrambled_program(head):
        return _WHAT.format("scrambled program stream, such as CSS of a DVD")
    return None


def encrypted_packet(packet: Any) -> str | None:
    """Return why a packet's video is encrypted; None if it is not. An encrypted MP4 may begin with plain frames."""
    return _WHAT.format("common encryption of MP4") if packet.has_sidedata("encryption_info") else None


def encrypted_data(format_name: str, data: bytes | str, head: bytes) -> str | None:
    """Return why a video from which no frame decodes is encrypted; None if nothing shows that it is."""
    if "mp4" in format_name and (entry := sample_entry(data, _MP4_ENTRIES)):
        return _WHAT.format("FairPlay" if entry == b"drmi" else "common encryption of MP4")
    if format_name == "mpegts" and _scrambled(head):
        return _WHAT.format("scrambled transport stream")
    return None


def _scrambled_program(head: bytes) -> bool:
    """Return whether video packets of a program stream state that they are scrambled: their pictures would be noise."""
    flags = [found[1][0] for found in re.finditer(rb"\x00\x00\x01[\xe0-\xef]..([\x80-\xbf])", head, re.DOTALL)]
    return sum(bool(flag & 0x30) for flag in flags) > _SCRAMBLED_SHARE * len(flags)


def _scrambled(head: bytes) -> bool:
    """Return whether packets of a transport stream state that they are scrambled, with 188 or 192 bytes a packet."""
    for step, first in ((_TS_PACKET, 0), (_TS_PACKET + 4, 4)):
        packets = [head[at : at + 4] for at in range(first, len(head) - 4, step)]
        if not packets or any(packet[0] != 0x47 for packet in packets):
            continue
        payloads = [packet for packet in packets if packet[3] & 0x10]
        scrambled = sum(bool(packet[3] & 0xC0) for packet in payloads)
        return scrambled > _SCRAMBLED_SHARE * len(payloads)
    return False

"""What a file is that FFmpeg does not open as a video, from its first bytes: for the message of its failure."""

from __future__ import annotations

import re

HEAD_BYTES = 64 * 1024  # that are looked at

# (first bytes, at offset) -> what the file is, and what to do.
_SIGNATURES: tuple[tuple[bytes, int, str], ...] = (
    (b"PK\x03\x04", 0, "is a ZIP archive. Unpack it"),
    (b"PK\x05\x06", 0, "is an empty ZIP archive"),
    (b"Rar!\x1a\x07", 0, "is a RAR archive. Unpack it"),
    (b"7z\xbc\xaf\x27\x1c", 0, "is a 7z archive. Unpack it"),
    (b"\x1f\x8b", 0, "is compressed by gzip. Unpack it"),
    (b"BZh", 0, "is compressed by bzip2. Unpack it"),
    (b"\xfd7zXZ\x00", 0, "is compressed by xz. Unpack it"),
    (b"\x28\xb5\x2f\xfd", 0, "is compressed by zstd. Unpack it"),
    (b"ustar", 257, "is a tar archive. Unpack it"),
    (b"CD001", 32769, "is a disc image. Take the videos out of it"),
    (b"\xff\xd8\xff", 0, "is a JPEG picture, not a video"),
    (b"\x89PNG\r\n\x1a\n", 0, "is a PNG picture, not a video"),
    (b"BM", 0, "is a BMP picture, not a video"),
    (b"II*\x00", 0, "is a TIFF picture, not a video"),
    (b"MM\x00*", 0, "is a TIFF picture, not a video"),
    (b"P5\n", 0, "is a PGM picture, not a video"),
    (b"P6\n", 0, "is a PPM picture, not a video"),
    (b"\x00\x00\x01\x00", 0, "is an icon, not a video"),
    (b"8BPS", 0, "is a Photoshop picture, not a video"),
    (b"\x00\x00\x00\x0cJXL ", 0, "is a JPEG XL picture, not a video"),
    (b"%PDF", 0, "is a PDF document"),
    (b"\xd0\xcf\x11\xe0", 0, "is an Office document"),
    (b"\x7fELF", 0, "is a program"),
    (b"MZ", 0, "is a Windows program"),
    (b"PAR1", 0, "is a Parquet table. Give it as `videos.uri` to use it as a manifest"),
    (b"\x89HDF\r\n\x1a\n", 0, "is an HDF5 file"),
    (b"\x93NUMPY", 0, "is a NumPy array"),
    (b"SQLite format 3", 0, "is an SQLite database"),
)  # fmt: skip
_SOUNDS = {
    b"ID3": "MP3",
    b"fLaC": "FLAC",
    b"#!AMR": "AMR",
    b"MThd": "MIDI",
    b"\x0b\x77": "AC-3",
    b"\x7f\xfe\x80\x01": "DTS",
    b"FORM": "AIFF",
    b".snd": "AU",
    b"caff": "CAF",
}
_TEXTS: tuple[tuple[str, str], ...] = (
    (r"#EXTM3U", "is a playlist (HLS) that points to the video, which is never followed. Download the video itself"),
    (r"ffconcat version", "is a list of files for FFmpeg, which is never followed. Join the videos first"),
    (r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<MPD\b", "is a playlist (DASH) that points to the video, which is never "
     "followed. Download the video itself"),
    (r"\[playlist\]|<asx\b|<smil\b", "is a playlist, which is never followed. Give the videos themselves"),
    (r"\[InternetShortcut\]", "is a link to a web page, not the video. Download the video itself"),
    (r"version https://git-lfs", "is a pointer of Git LFS, not the video. Run `git lfs pull`"),
    (r"/annex/objects/|\.\./.*\.git/annex", "is a pointer of git-annex, not the video. Run `git annex get`"),
    (r"<\?xml[^>]*>\s*<Error>|<Error><Code>", "is an error message of a storage service that was saved as a file. "
     "Download it again"),
    (r"(<!--.*?-->\s*)*<(!doctype html|html|head|body)\b", "is a web page that was saved as a file, often a message "
     "that the video is not available. Download it again"),
    (r"WEBVTT|1\r?\n\d\d:\d\d:\d\d,\d{3} -->", "has subtitles and no video"),
    (r"v=0\r?\no=", "describes a stream (SDP) and holds no video"),
    (r"d\d+:(announce|created)", "is a torrent, not the video. Download the video itself"),
    (r"[\[{]\s*[\[{\"]", "is JSON text, not a video. It may be an error message: download it again"),
)  # fmt: skip
# Of pictures; an animation has the last two, and an index besides.
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF", b"avis": "AVIF"}


def describe_file(head: bytes) -> tuple[str, str] | None:
    """Return what a file is: (kind of the failure, the rest of a sentence such as `is a ZIP archive. Unpack it`).

    Args:
        head: its first `HEAD_BYTES`, or all of it if it has fewer.

    Returns:
        None if the file is not recognised.
    """
    if not head.strip(b"\x00"):
        return "truncated", "holds only zero bytes: its download was begun and not finished. Download it again"
    if sound := _sound(head):
        return "no_video_stream", f"is sound ({sound}) and has no video"
    what = next((what for first, at, what in _SIGNATURES if head[at : at + len(first)] == first), None)
    what = what or _picture(head) or _text(head)
    return ("not_video", what) if what else None


def _sound(head: bytes) -> str | None:
    for first, name in _SOUNDS.items():
        if head.startswith(first):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "WAV"
    # The sync word of MPEG audio, with a layer (or none, in AAC) and a sampling rate that exist.
    if len(head) > 3 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x18 != 0x08:
        aac = head[1] & 0xF6 == 0xF0
        if aac or (head[1] & 0x06 and head[2] & 0x0C != 0x0C and head[2] & 0xF0 != 0xF0):
            return "AAC" if aac else "MPEG audio"
    return None


def still_brand(head: bytes) -> str | None:
    """Return the kind of picture that the `ftyp` box of a file names, such as `HEIC`; None if it names none."""
    return _BRANDS.get(head[8:12]) if head[4:8] == b"ftyp" else None


def _picture(head: bytes) -> str | None:
    if brand := still_brand(head):
        return f"is a picture ({brand}), not a video"
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    if head[12:16] == b"VP8X" and len(head) > 20 and head[20] & 2:
        return "is an animated WebP, which FFmpeg does not decode. Convert it to MP4"
    return "is a WebP picture, not a video"


def _text(head: bytes) -> str | None:
    if b"\x00" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    text = head[:4096].decode(encoding, "replace").lstrip()
    for pattern, what in _TEXTS:
        if re.match(pattern, text, re.IGNORECASE | re.DOTALL):
            return what
    bad = sum(not (c.isprintable() or c.isspace()) or c == "\ufffd" for c in text)
    return "is text, not a video" if text and bad <= len(text) // 50 else None

"""The containers that the decoder reads: FFmpeg's demuxers by name, and the extensions of such files.

A demuxer is on the list if its files are self-contained: no playlist, no script, no file that refers to another one.
The installed FFmpeg has a demuxer and decoders for each. Not on the list, although FFmpeg reads it: audio (.m4a, .mka,
.oga, .ogg), still pictures (.png, .jpg, .avif, .heic), and animated WebP, which FFmpeg does not decode.
"""

from __future__ import annotations

# FFmpeg's demuxer -> extensions of its files, lower case, without a dot.
CONTAINERS: dict[str, tuple[str, ...]] = {
    "mov,mp4,m4a,3gp,3g2,mj2": (
        "mp4", "mov", "m4v", "3gp", "3g2", "3gpp", "3gp2", "mj2", "mqv", "qt", "f4v", "ismv", "lrv", "insv",
    ),
    "matroska,webm": ("mkv", "webm", "mk3d"),
    "avi": ("avi", "divx", "xvid"),
    "mpeg": ("mpg", "mpeg", "mpe", "vob", "vro", "mod", "tod", "m2p"),
    "mpegvideo": ("m1v", "m2v", "mpv"),
    "mpegts": ("ts", "m2ts", "mts", "m2t", "trp", "tp"),
    "flv": ("flv",),
    "asf": ("wmv", "asf", "dvr-ms"),
    "ogg": ("ogv", "ogm", "ogx"),
    "nut": ("nut",),
    "mxf": ("mxf",),
    "dv": ("dv", "dif"),
    "gxf": ("gxf",),
    "wtv": ("wtv",),
    "rm": ("rm", "rmvb"),
    "dhav": ("dav",),
    "yuv4mpegpipe": ("y4m",),
    "h264": ("h264", "264", "avc"),
    "hevc": ("hevc", "h265", "265"),
    "m4v": (),  # a raw MPEG-4 stream; files with this extension are MP4
    "ivf": ("ivf",),
    "gif": ("gif",),
    "apng": ("apng",),
}  # fmt: skip

DEMUXERS = ",".join(CONTAINERS)
VIDEO_EXTENSIONS: tuple[str, ...] = tuple(extension for names in CONTAINERS.values() for extension in names)

"""Side tables: only later stages and pages read them."""

from __future__ import annotations

import pyarrow as pa

from vtcav_ray.rows import EffectTestRow, ErasureRow, FiniteChangeRow, HalfRow, RandomisedRow, schema_of

EFFECT_TESTS = schema_of(EffectTestRow)

CHANCE = pa.schema(
    [
        ("layer", pa.string()),
        ("concept", pa.string()),
        ("against", pa.string()),
        ("draw", pa.int32()),  # 0: the concept; others: random source videos of both sides that stand in for it
        ("accuracy", pa.float64()),  # held out, balanced: mean over some CAVs; NaN: none could be trained
    ]
)

SIGNATURE_NUMBERS = 110  # see vtcav_ray.tracks.copies
SIGNATURES = pa.schema(
    [
        ("video_id", pa.string()),
        ("signature", pa.list_(pa.float32(), SIGNATURE_NUMBERS)),
    ]
)

TIMES = pa.schema(
    [
        ("video_id", pa.string()),  # of a video whose frame rate varies; others are not in the table
        ("seconds", pa.list_(pa.float64())),  # of every frame of the source video, since its first
    ]
)

SEGMENTS = pa.schema(  # only if a manifest gives segments
    [
        ("video_id", pa.string()),
        ("start", pa.float64()),  # as in `videos`
        ("end", pa.float64()),
        ("first", pa.int32()),  # source frames of the segment; null: the video has no frame in it
        ("last", pa.int32()),
    ]
)

WINDOW = pa.list_(pa.int32(), 4)  # xyxy, whole pixels of the source frame
MASKS = pa.schema(
    [
        ("video_id", pa.string()),
        ("track_id", pa.int32()),
        ("frames", pa.list_(pa.int32())),  # frames of the track in which the object has a mask, rising
        ("windows", pa.list_(WINDOW)),  # one per frame: the smallest window that holds the mask
        # One per frame: lengths of the runs of equal pixels in the window, row by row, the first of them off
        ("runs", pa.list_(pa.list_(pa.uint32()))),
    ]
)

THUMB_NUMBERS = 3 * 16**2  # three small grey pictures of 16 x 16
LOOKS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("video_id", pa.string()),  # needed to carry a video's rows over with its clips (vtcav_ray.runs.carry)
        ("set", pa.string()),
        ("name", pa.string()),
        ("kind", pa.string()),
        ("bits", pa.uint64()),  # see vtcav_ray.clips.duplicates.Appearance
        ("thumbs", pa.list_(pa.uint8(), THUMB_NUMBERS)),
    ]
)

DUPLICATES = pa.schema([("clip_id", pa.string()), ("repeats", pa.string())])  # repeats a clip of the same set
COPIES = pa.schema([("video_id", pa.string()), ("repeats", pa.string())])  # is a copy of another video

GIVEN = pa.schema(
    [
        # Unique name of the own clip: its source, and what it is in there; of a pair, both have the concept's
        ("clip", pa.string()),
        ("concept", pa.string()),  # null: one of the random clips of every concept from folders
        ("negative", pa.bool_()),  # one of the concept's random clips
        ("kind", pa.string()),  # given (a video) or still (an image)
        ("video_id", pa.string()),  # its source video
        ("uri", pa.string()),
        ("label", pa.string()),  # class of the source video; null: unknown
        ("start", pa.float64()),  # seconds, of the part to use; null: from the beginning
        ("end", pa.float64()),
        ("size_bytes", pa.int64()),
        ("fingerprint", pa.string()),
    ]
)

CLIP_SIGNATURES = pa.schema(
    [
        ("clip_id", pa.string()),
        ("video_id", pa.string()),
        ("set", pa.string()),
        ("given", pa.bool_()),  # an own clip; else a video of the corpus
        ("signature", pa.list_(pa.float32(), SIGNATURE_NUMBERS)),  # of the file, or of the part of it that is used
    ]
)

CONTENTS = pa.schema(
    [
        ("video_id", pa.string()),
        ("sha256", pa.string()),  # of the video's rows in `clips`, frames included
    ]
)

LEFT_OUT = pa.schema(
    [
        ("clip_id", pa.string()),
        ("reason", pa.string()),  # rejected, undecided, duplicate, or no_partner: the other clip of its pair failed
    ]
)

ALIGNED = pa.schema(
    [
        ("class", pa.string()),
        ("layer", pa.string()),
        ("mode", pa.string()),
        ("clips", pa.int32()),
        ("sum", pa.list_(pa.float64())),  # [S·S], times a uniform map, summed over frames and clips
        ("count", pa.list_(pa.float64())),  # [S·S], frames that saw this place
    ]
)

OVERLAYS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("video_id", pa.string()),
        ("class", pa.string()),
        ("layer", pa.string()),
        ("mode", pa.string()),
        ("mp4", pa.string()),  # path below the stage's folder
        ("webp", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
    ]
)

MAP_OVERLAYS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("video_id", pa.string()),
        ("class", pa.string()),
        ("layer", pa.string()),
        ("concept", pa.string()),
        ("against", pa.string()),
        ("mp4", pa.string()),  # path below the stage's folder
        ("webp", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
    ]
)

AGGREGATE = pa.schema(
    [
        ("class", pa.string()),
        ("layer", pa.string()),
        ("mode", pa.string()),
        ("clips", pa.int32()),
        # [S·S], by rows: mean map around the object's own box (its middle third), times a uniform map; NaN: never seen
        ("map", pa.list_(pa.float64())),
    ]
)
ERASURES = schema_of(ErasureRow)
FINITE_CHANGES = schema_of(FiniteChangeRow)
RANDOMISED = schema_of(RandomisedRow)
HALVES = schema_of(HalfRow)

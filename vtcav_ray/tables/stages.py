"""The tables of the stages.

Vectors are plain `FixedSizeList<float32>[d]` (d differs from layer to layer, so each layer has its own files), which
every Parquet reader understands. Boxes are pixels of the source frame, xyxy, (0, 0) at the top left corner.
"""

from __future__ import annotations

import json

import pyarrow as pa

from vtcav_ray.rows import (
    CompositionRow,
    Failure,
    MistakeRow,
    NullRow,
    ResponseRow,
    ScoreRow,
    SensitivityRow,
    VerdictRow,
    schema_of,
)
from vtcav_ray.tables.types import BOX, PART, POINT, vector

VIDEOS = pa.schema(
    [
        ("video_id", pa.string()),  # stable name of the source video: the unit of analysis
        ("uri", pa.string()),
        ("label", pa.string()),  # class name; several are sorted, with `; ` between them; null: unknown
        ("split", pa.string()),  # null: not given
        ("size_bytes", pa.int64()),
        ("fingerprint", pa.string()),  # ETag, or size and time of change: shows that a file was replaced
    ]
)

VIDEO_OPTIONS = pa.schema(  # columns of `videos` that it has only if a manifest or a list of labels gives them
    [
        ("source", pa.string()),  # only if given: the source video that the file is a part of, which then is the unit
        # Only if given: the parts that are used, in seconds since the first frame, with their labels; null: all of it
        ("segments", pa.list_(PART)),
        (
            "reserved",
            pa.bool_(),
        ),  # only if `videos.enough` stopped the search: kept for random clips, whatever it shows
    ]
)

TRACKS = pa.schema(
    [
        ("video_id", pa.string()),
        ("track_id", pa.int32()),  # from 1, unique in its video
        ("label", pa.string()),  # the detector's name of the object
        ("frames", pa.list_(pa.int32())),  # indices into the decoded source video, rising
        ("boxes", pa.list_(BOX)),  # one per frame
        ("confidence", pa.list_(pa.float32())),  # one per frame, in [0, 1]
        ("fps", pa.float64()),  # of the source; mean frames per second
        ("height", pa.int32()),  # of the source frame, pixels
        ("width", pa.int32()),
        ("num_frames", pa.int32()),  # of the whole source video
        ("camera", pa.list_(POINT)),  # the camera's own (x, y) shift since frame 0, pixels, one per frame
        ("sharpness", pa.list_(pa.float32())),  # variance of the Laplacian inside the box, one per frame
        ("shot", pa.list_(pa.int32())),  # number of the shot that the frame belongs to, from 0
    ]
)

CLIPS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("set", pa.string()),  # concept, class or random
        ("name", pa.string()),  # the concept's or the class's name; for random clips `random/<kind>`
        ("kind", pa.string()),  # see vtcav_ray.clips.kinds; for class examples `full`
        ("video_id", pa.string()),
        ("label", pa.string()),  # labels of the clip's source video, or of its segment; null: unknown
        ("object", pa.string()),  # the track's label; null: no track
        ("motion", pa.string()),  # direction word of the track over these frames; null: no track
        ("track_id", pa.int32()),
        ("frames", pa.list_(pa.int32())),  # source frame of each of the T frames
        ("boxes", pa.list_(BOX)),  # the object in each of the T frames, source pixels; null: no track
        ("control_of", pa.string()),  # clip_id of the clip whose motion control this is; null: none
        ("num_frames", pa.int32()),  # T
        ("height", pa.int32()),  # of the stored frames, pixels
        ("width", pa.int32()),
        ("encoding", pa.string()),  # how `encoded` is written; see vtcav_ray.video.codec
        ("encoded", pa.binary()),  # T frames, RGB, lossless
    ]
)


def activations(d: int, numbers: str = "float32") -> pa.Schema:
    """One row per (clip, layer)."""
    return pa.schema(
        [
            ("clip_id", pa.string()),
            ("set", pa.string()),
            ("name", pa.string()),
            ("kind", pa.string()),
            ("video_id", pa.string()),
            ("layer", pa.string()),
            ("views", pa.int32()),  # how many views (clips x crops) were averaged
            ("model", pa.string()),  # `<checkpoint>@<digest>`, or `UNTRAINED@<digest>`
            ("vector", vector(d, numbers)),
        ]
    )


CLASSES = b"classes"  # key of the metadata of `ANSWERS`: the model's classes, as JSON
ANSWERS = pa.schema(  # one row per clip
    [
        ("clip_id", pa.string()),
        ("set", pa.string()),
        ("name", pa.string()),
        ("kind", pa.string()),
        ("video_id", pa.string()),
        ("label", pa.string()),  # labels of the clip's source video, or of its segment; null: unknown
        ("predicted", pa.string()),  # the class of the largest logit
        # One per class of the model, the mean over the views; the files' metadata name the classes: see `classes_of`
        ("logits", pa.list_(pa.float32())),
        # One per layer of `activations.layers`: an effect at the layer times this is the change of the logit, to first
        # order, when the clip's whole activation makes the move (for the projection `mean`, the number of positions)
        ("gains", pa.list_(pa.float32())),
        ("views", pa.int32()),
        ("model", pa.string()),
    ]
)


def classes_of(answers: pa.Table) -> list[str]:
    """Return the model's classes, in the order of `logits`.

    Raises:
        KeyError: the table has no such metadata.
    """
    return list(json.loads(answers.schema.metadata[CLASSES]))


def gradients(d: int) -> pa.Schema:
    """One row per (class example, layer, class): the gradient of the class's target at the layer, projected.

    Always float32: gradients of a mean over thousands of positions are smaller than float16's smallest number.
    """
    return pa.schema(
        [
            ("clip_id", pa.string()),
            ("video_id", pa.string()),
            ("class", pa.string()),  # the class whose target was differentiated
            ("layer", pa.string()),
            ("target", pa.string()),  # logit, log_odds or log_probability
            ("value", pa.float32()),  # of the target, at this clip
            ("predicted", pa.string()),  # the model's own answer for this clip
            ("reference", pa.bool_()),  # the clip is in the reference set, where every class is differentiated
            (
                "gain",
                pa.float64(),
            ),  # logits of moving the whole activation by Δz, to first order, over vector·Δz
            ("margin", pa.float32()),  # logit of the class minus the largest of the others, at this clip
            ("views", pa.int32()),
            ("model", pa.string()),
            ("vector", vector(d)),
        ]
    )


def cavs(d: int) -> pa.Schema:
    """One row per trained CAV. Decision value of a vector z in P-space: z·vector + bias."""
    return pa.schema(
        [
            ("layer", pa.string()),
            ("concept", pa.string()),  # `<name>/<kind>`; for the null, the random set in the concept's place
            ("against", pa.string()),  # the reader's comparison: `random`, `rest of <kind>`, another concept
            ("negatives", pa.string()),  # this run's draw of it, `<against>#<run>`
            ("is_null", pa.bool_()),  # random against random; for own clips in pairs, pairs that were swapped by a coin
            ("seed", pa.int64()),
            ("solver", pa.string()),
            ("n_positives", pa.int32()),
            ("n_negatives", pa.int32()),
            ("train_accuracy", pa.float32()),  # balanced, in [0, 1]
            ("held_out_accuracy", pa.float32()),  # balanced, on source videos not trained on
            ("model", pa.string()),
            ("bias", pa.float32()),
            ("vector", vector(d)),  # unit length, pointing at the concept
            ("reason", pa.string()),  # why it could not be trained (all figures are then NaN); empty: it was
        ]
    )


CURVES = pa.schema(
    [
        ("layer", pa.string()),
        ("concept", pa.string()),
        ("n", pa.int32()),  # source videos per side
        ("accuracy", pa.float64()),  # held out, balanced: mean over random draws of n
        ("sd", pa.float64()),  # over the draws
    ]
)

ENTANGLEMENT = pa.schema(
    [
        ("layer", pa.string()),
        ("concept", pa.string()),
        ("other", pa.string()),
        ("cosine", pa.float64()),  # between the two mean CAVs against random: near 1, the layer can't tell them apart
    ]
)

SCORES = schema_of(ScoreRow)
SENSITIVITIES = schema_of(SensitivityRow)
NULLS = schema_of(NullRow)
COMPOSITION = schema_of(CompositionRow)
MISTAKES = schema_of(MistakeRow)
VERDICTS = schema_of(VerdictRow)
RESPONSES = schema_of(ResponseRow)
FAILURES = schema_of(Failure)

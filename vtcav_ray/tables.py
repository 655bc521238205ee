"""Every table of a run on one page: its columns, their types and units.

Vectors are plain `FixedSizeList<float32>[d]` (d differs from layer to layer, so each layer has its own files), which
every Parquet reader understands. Boxes are pixels of the source frame, xyxy, (0, 0) at the top left corner.

Tables whose rows are dataclasses have their columns in `vtcav_ray.rows`.
"""

from __future__ import annotations

import json

import pyarrow as pa

from vtcav_ray.rows import (
    CompositionRow,
    EffectTestRow,
    Failure,
    MapRow,
    MapSummaryRow,
    MistakeRow,
    NullRow,
    PatchedRow,
    PatchEffectRow,
    ResponseRow,
    ScoreRow,
    SensitivityRow,
    VerdictRow,
    schema_of,
)

BOX = pa.list_(pa.float32(), 4)
POINT = pa.list_(pa.float32(), 2)


def vector(d: int, numbers: str = "float32") -> pa.DataType:
    """The type of a vector of `d` numbers in P-space, `float32` or `float16`."""
    return pa.list_(pa.from_numpy_dtype(numbers), d)


VIDEOS = pa.schema(
    [
        ("video_id", pa.string()),  # stable name of the source video: the unit of analysis
        ("uri", pa.string()),
        ("label", pa.string()),  # class name; null: unknown
        ("split", pa.string()),  # null: not given
        ("size_bytes", pa.int64()),
        ("fingerprint", pa.string()),  # ETag, or size and time of change: shows that a file was replaced
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
        ("label", pa.string()),  # class of the source video; null: unknown
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
        ("label", pa.string()),  # class of the source video; null: unknown
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
            ("is_null", pa.bool_()),  # random against random
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


SCORES = schema_of(ScoreRow)
CELL_KEY = ("class", "layer", "concept", "against")  # identifies a cell
EFFECT = ("effect", "ci_low", "ci_high")  # a cell's effect with its interval
_RENAMED = {
    "effect_logits": "effect",
    "effect_ci_low": "ci_low",
    "effect_ci_high": "ci_high",
    "effect_null_sd": "null_sd",
    "effect_z": "z",
    "effect_p": "p",
    "effect_p_symmetric": "p_symmetric",
    "effect_q": "q",
    "score": "tcav_score",
    "null_mean": "tcav_null_mean",
    "magnitude": "tcav_magnitude",
    "smooth": "tcav_smooth",
}
# Table -> old column -> its name today. Old scores had other figures under `effect`, `ci_low`, `p`, `q` and `null_sd`.
RENAMED = {"scores": _RENAMED, "patch_effects": {"effect_logits": "effect"}}
# Table -> a column that older versions did not write: a stored table without it is old.
MARKER = {"scores": "tcav_score", "patch_effects": "effect", "gradients": "gain"}
SENSITIVITIES = schema_of(SensitivityRow)
NULLS = schema_of(NullRow)
COMPOSITION = schema_of(CompositionRow)
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

INTERVENTIONS = pa.schema(
    [
        ("class", pa.string()),
        ("layer", pa.string()),
        ("concept", pa.string()),
        ("against", pa.string()),
        ("step", pa.float64()),  # t: the shift is t * (mean concept - mean random), lifted to the activation
        (
            "gain",
            pa.float64(),
        ),  # of these clips: logits that the lifted shift moves, to first order, over (P∇h)·Δz
        ("predicted", pa.float64()),  # t * gain * (P∇h)·Δz: first order, logits
        ("real", pa.float64()),  # mean change of the class's logit when the rest of the model is run
        ("real_sd", pa.float64()),  # over the clips
        ("n", pa.int32()),  # class clips, one per source video
        ("model", pa.string()),
    ]
)

GRADCAM = pa.schema(
    [
        ("clip_id", pa.string()),
        ("video_id", pa.string()),
        ("class", pa.string()),  # the class whose logit was differentiated: the clip's own
        ("layer", pa.string()),
        ("mode", pa.string()),  # frame, window or clip: see vtcav_ray.gradcam.maps
        ("flicker", pa.float64()),  # mean total variation distance of neighbouring frames' maps, in [0, 1]
        ("track_flicker", pa.float64()),  # of the object's own box, seen at the layer's resolution: the floor
        ("jump", pa.float64()),  # mean path of the centre of mass from frame to frame, fraction of the frame
        ("track_jump", pa.float64()),
        ("direction", pa.float64()),  # correlation with the reversed clip's map, turned back; 1: blind to direction
        ("direction_predicted", pa.float64()),  # the same, each of the two explained for the model's own answer
        ("logit", pa.float64()),  # of the class; mean over the mode's plays
        ("logit_change", pa.float64()),  # of the same class, when the clip is reversed
        ("predicted", pa.string()),  # the model's own answer, from the plays' mean logits
        ("predicted_reversed", pa.string()),
        ("background_share", pa.float64()),  # map mass outside of all tracked boxes, in [0, 1]; null: no track
        ("background_chance", pa.float64()),  # of a uniform map
        ("track_agreement", pa.float64()),  # correlation with the object's own box, seen at the layer's resolution
        ("pointing", pa.float64()),  # share of frames whose map is largest inside of a box
        ("drift_x", pa.float64()),  # path of the centre of mass over the clip, fraction of the frame
        ("drift_y", pa.float64()),  # y is down
        ("track_drift_x", pa.float64()),
        ("track_drift_y", pa.float64()),
        ("shuffled_weights_similarity", pa.float64()),  # correlation with the map of a model with shuffled weights
        ("empty_share", pa.float64()),  # frames whose map is nowhere positive
        ("passes", pa.int32()),  # forward and backward passes that the clip's own map took
        ("model", pa.string()),
    ]
)

GRADCAM_SUMMARY = pa.schema(
    [
        ("class", pa.string()),  # `all`: every class together
        ("layer", pa.string()),
        ("mode", pa.string()),
        ("measure", pa.string()),  # a column of `gradcam`
        ("mean", pa.float64()),  # over source videos
        ("ci_low", pa.float64()),  # 95 %, bootstrap over source videos
        ("ci_high", pa.float64()),
        ("n", pa.int32()),  # source videos that have the figure
    ]
)

MISTAKES = schema_of(MistakeRow)
VERDICTS = schema_of(VerdictRow)
RESPONSES = schema_of(ResponseRow)
PATCHED = schema_of(PatchedRow)
PATCH_EFFECTS = schema_of(PatchEffectRow)
MAPS = schema_of(MapRow)
MAPS_SUMMARY = schema_of(MapSummaryRow)
FAILURES = schema_of(Failure)

# The schema of a table without rows.
EMPTY_SCHEMAS = {
    "videos": VIDEOS,
    "tracks": TRACKS,
    "clips": CLIPS,
    "activations": activations(1),
    "answers": ANSWERS,
    "gradients": gradients(1),
    "cavs": cavs(1),
    "curves": CURVES,
    "entanglement": ENTANGLEMENT,
    "scores": SCORES,
    "sensitivities": SENSITIVITIES,
    "nulls": NULLS,
    "composition": COMPOSITION,
    "mistakes": MISTAKES,
    "verdicts": VERDICTS,
    "failures": FAILURES,
    "gradcam": GRADCAM,
    "gradcam_summary": GRADCAM_SUMMARY,
    "responses": RESPONSES,
    "patched": PATCHED,
    "patch_effects": PATCH_EFFECTS,
    "maps": MAPS,
    "maps_summary": MAPS_SUMMARY,
}

# Side tables: only later stages and pages read them.

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

CONTENTS = pa.schema(
    [
        ("video_id", pa.string()),
        ("sha256", pa.string()),  # of the video's rows in `clips`, frames included
    ]
)

LEFT_OUT = pa.schema(
    [
        ("clip_id", pa.string()),
        ("reason", pa.string()),  # rejected, undecided or duplicate
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

SIDE_SCHEMAS = {
    "signatures": SIGNATURES,
    "times": TIMES,
    "looks": LOOKS,
    "duplicates": DUPLICATES,
    "copies": COPIES,
    "contents": CONTENTS,
    "map_overlays": MAP_OVERLAYS,
    "left_out": LEFT_OUT,
    "chance": CHANCE,
    "cells": SCORES,  # of one layer, without the tests of the effects and the correction
    "score_nulls": NULLS,  # without the nulls of the effects
    "effect_tests": EFFECT_TESTS,
    "aligned": ALIGNED,
    "overlays": OVERLAYS,
    "aggregate": AGGREGATE,
}

"""The tables of commands that run beside the stages: intervene, gradcam, patch and maps."""

from __future__ import annotations

import pyarrow as pa

from vtcav_ray.rows import FaithfulnessRow, MapRow, MapSummaryRow, PatchedRow, PatchEffectRow, schema_of

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

# Only with `gradcam.place`.
GRADCAM_PLACES = pa.schema(
    [
        ("clip_id", pa.string()),
        ("video_id", pa.string()),
        ("class", pa.string()),
        ("layer", pa.string()),
        ("mode", pa.string()),
        ("place_share", pa.float64()),  # of the map's mass that lies in `gradcam.place`, in [0, 1]; null: no mass
        ("place_area", pa.float64()),  # share of the model's input that the place has: that of a uniform map
        ("model", pa.string()),
    ]
)

GRADCAM_PLACES_SUMMARY = pa.schema(
    [
        ("class", pa.string()),  # `all`: every class together
        ("layer", pa.string()),
        ("mode", pa.string()),
        ("median", pa.float64()),  # of place_share, over source videos
        ("ci_low", pa.float64()),  # 95 % or more, from order statistics; null: fewer than 6 source videos
        ("ci_high", pa.float64()),
        ("area", pa.float64()),  # median of place_area
        ("n", pa.int32()),  # source videos that have the figure
    ]
)

PATCHED = schema_of(PatchedRow)
PATCH_EFFECTS = schema_of(PatchEffectRow)
MAPS = schema_of(MapRow)
MAPS_SUMMARY = schema_of(MapSummaryRow)
FAITHFULNESS = schema_of(FaithfulnessRow)

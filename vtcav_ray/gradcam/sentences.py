"""Findings in sentences. A figure and its interval decide every verdict; none is fixed in advance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vtcav_ray.gradcam.compare import AXES, Comparison, Interval, MapFigures, TcavFigures
from vtcav_ray.pages.wording import count, equals, share, signed

ALPHA = 0.05
SAME, ALIKE = 0.9, 0.5  # smallest correlations of maps that are called nearly the same, and alike
SummaryRows = Mapping[str, Mapping[str, Any]]  # measure -> its row of `gradcam_summary`


def with_interval(figure: Interval, *, sign: bool = False) -> str:
    """Write a figure with its interval: `0.94 [0.92, 0.95]`."""
    write = signed if sign else share
    if math.isnan(figure.value):
        return "–"
    ends = "" if math.isnan(figure.low) else f" [{write(figure.low)}, {write(figure.high)}]"
    return (write(figure.value) + ends).replace("-", "−")


def interval_of(row: Mapping[str, Any] | None) -> Interval:
    """Return the interval of a row of `gradcam_summary`. Nulls and a missing row give NaN."""
    if row is None:
        return Interval(math.nan, math.nan, math.nan)
    values = (math.nan if row[k] is None else float(row[k]) for k in ("mean", "ci_low", "ci_high"))
    return Interval(*values)


def likeness(correlation: float) -> str:
    """Describe the correlation of two maps in words."""
    if math.isnan(correlation):
        return "can't be compared"
    return "are nearly the same" if correlation >= SAME else "are alike" if correlation >= ALIKE else "differ"


def flicker_sentence(rows: SummaryRows, layer: str, mode: str) -> str:
    """Describe flicker and jumps of the maps beside those of the object."""
    flicker, floor = interval_of(rows.get("flicker")), interval_of(rows.get("track_flicker"))
    jump, track = interval_of(rows.get("jump")), interval_of(rows.get("track_jump"))
    if math.isnan(flicker.value):
        return f"In the mode {mode}, no clip has maps in two neighbouring frames at the layer {layer}."
    text = f"In the mode {mode}, {100 * flicker.value:.0f} % of a map's mass at the layer {layer} moves each frame"
    if not math.isnan(floor.value):
        text += f" (the object's own box: {100 * floor.value:.0f} %{_times(flicker.value, floor.value)})"
    text += f", and its centre jumps by {100 * jump.value:.1f} % of the frame"
    if not math.isnan(track.value):
        text += f" (the object: {100 * track.value:.1f} %{_times(jump.value, track.value)})"
    return text + "."


def _times(value: float, floor: float) -> str:
    if floor <= 0:
        return ""
    ratio = value / floor
    return f"; {ratio:.1f} times" if ratio >= 0.1 else f"; {ratio:.2f} times"


def direction_sentence(rows: SummaryRows, layer: str) -> str:
    """Describe how similar the maps of a clip and its reverse are, in the mode `clip`."""
    own, same = interval_of(rows.get("direction_predicted")), interval_of(rows.get("direction"))
    change = interval_of(rows.get("logit_change"))
    return (
        f"Reversing a clip changes its class's logit by {with_interval(change, sign=True)}. The maps at the layer "
        f"{layer} that explain the model's answer before and after {likeness(own.value)}: they correlate at "
        f"{with_interval(own)} once the second is turned back (for the same class both times: {with_interval(same)})."
    )


def background_sentence(rows: SummaryRows, layer: str, mode: str) -> str:
    """Describe the map mass outside the boxes, compared with a uniform map."""
    found, chance = interval_of(rows.get("background_share")), interval_of(rows.get("background_chance"))
    if math.isnan(found.value):
        return "No tracked box lies on these clips, so nothing can be said of the background."
    if found.high < chance.value:
        verdict = "less than a map that is the same everywhere has there"
    elif found.low > chance.value:
        verdict = "more than a map that is the same everywhere has there"
    else:
        verdict = "not shown to differ from a map that is the same everywhere"
    return (
        f"{100 * found.value:.0f} % of the map's mass at the layer {layer} (mode {mode}) lies outside of every tracked "
        f"box: {verdict} ({100 * chance.value:.0f} %)."
    )


def sanity_sentence(rows: SummaryRows, layer: str, mode: str) -> str:
    """Describe the similarity to the map of shuffled weights."""
    found = interval_of(rows.get("shuffled_weights_similarity"))
    return (
        f"With the model's weights shuffled, the maps at the layer {layer} (mode {mode}) correlate with the real ones "
        f"at {with_interval(found)}: {_sanity(found)}"
    )


def _sanity(found: Interval) -> str:
    if math.isnan(found.value):
        return "this is not known."
    if found.value >= ALIKE:
        return "much of the picture does not come from what the model learnt."
    return "the picture comes from what the model learnt, for the most part."


def maps_of_pair(pair: Comparison, figures: MapFigures, layer: str) -> list[str]:
    """Describe what Grad-CAM shows about two classes at one layer."""
    first, second = pair.classes
    turned, clips = (sum(t[i] for t in figures.turned) for i in (0, 1))
    axis = AXES[figures.axis]
    return [
        f"Reversed, {turned:,} of {count(clips, 'clip')} are called the other class. The maps at the layer {layer} "
        f"that explain the two answers {likeness(figures.direction.value)}: correlation "
        f"{with_interval(figures.direction)}. Explained for the clip's own class both times, it is "
        f"{with_interval(figures.direction_same)}.",
        f"Could one still read the direction from how a map moves? Its centre goes "
        f"{_way(figures.drift[0])} of the frame's {axis} in {first} and {_way(figures.drift[1])} in {second} (the "
        f"object's own box, at the layer's resolution: {_way(figures.track_drift[0])} and "
        f"{_way(figures.track_drift[1])}). {_area_words(figures)}",
    ]


def _way(figure: Interval) -> str:
    return "–" if math.isnan(figure.value) else f"{100 * figure.value:+.1f} %".replace("-", "−")


def _area_words(figures: MapFigures) -> str:
    area = figures.drift_area
    if math.isnan(area.value):
        return "It can't be measured here."
    measured = f"(AUC {with_interval(area)}; the object's own box: {share(figures.track_area.value)})"
    if (part := _part_of_way(figures)) is not None:
        measured += f", over {100 * part:.0f} % of the object's way"
    if area.low > 0.5:
        return f"Measured so, the drift does tell the two classes apart {measured}."
    if area.high < 0.5:
        return f"Measured so, the maps drift AGAINST the object {measured}."
    return f"Even measured, the drift is not shown to tell the two classes apart {measured}."


def _part_of_way(figures: MapFigures) -> float | None:
    """Return the maps' drift as a share of the object's, each as the difference between the two classes' means."""
    maps, tracks = (a.value - b.value for a, b in (figures.drift, figures.track_drift))
    return maps / tracks if math.isfinite(maps) and math.isfinite(tracks) and tracks else None


def tcav_of_pair(pair: Comparison, figures: TcavFigures, layer: str) -> list[str]:
    """Describe what Video-TCAV shows about the same classes."""
    one, other = pair.concepts
    parts = [_moves(effect, p, name) for name, effect, p in zip(pair.classes, figures.effect, figures.p, strict=True)]
    return [
        f"Against {other}, {one} at the layer {layer} {parts[0]} and {parts[1]}. Clip by clip, on the same clips, "
        f"this value tells the two classes apart with an AUC of {with_interval(figures.area)}."
    ]


def _moves(effect: Interval, p: float, name: str) -> str:
    """Write what the interval and p allow: a size without a sign where the verb gives the direction."""
    if effect.low > 0 or effect.high < 0:
        verb = "raises" if effect.low > 0 else "lowers"
        size = effect if effect.low > 0 else Interval(-effect.value, -effect.high, -effect.low)
        value, ends = (signed(size.value), f"[{signed(size.low)}, {signed(size.high)}]")
        return f"{verb} {name}'s logit by {value.lstrip('+')} {ends.replace('+', '')} (p {equals(p)})"
    change = f"changes {name}'s logit by {with_interval(effect, sign=True)}"
    if p < ALPHA:
        return f"{change}, which is not decided (p {equals(p)}, but the interval over other videos includes 0)"
    return f"{change}, which is not shown to differ from 0 (p {equals(p)})"


def has_opposite_effects(figures: TcavFigures) -> bool:
    """Return whether the two effects have opposite signs, with intervals that exclude zero."""
    first, second = figures.effect
    return (first.low > 0 and second.high < 0) or (first.high < 0 and second.low > 0)


def verdict(maps: MapFigures, tcav: TcavFigures | None) -> str:
    """Compare both methods in one sentence."""
    same = not math.isnan(maps.direction.low) and maps.direction.low >= SAME
    alike = not math.isnan(maps.direction.low) and maps.direction.low >= ALIKE
    drifts = maps.drift_area.low > 0.5
    if same:
        grad = "Grad-CAM's pictures of the two directions are nearly the same"
    elif alike:
        grad = "Grad-CAM's pictures of the two directions are alike"
    else:
        grad = "Grad-CAM's pictures of the two directions differ"
    grad += ", though their drift, measured, tells them apart" if drifts and alike else ""
    grad += ", and their drift tells them apart" if drifts and not alike else ""
    if tcav is None:
        return f"{grad}; there are no figures of Video-TCAV to set beside them."
    if has_opposite_effects(tcav):
        joined = ";" if alike else "; so do the concepts:"
        return f"{grad}{joined} Video-TCAV names the direction, with opposite signs for the two classes."
    return f"{grad}; Video-TCAV is not shown to tell the two classes apart at this layer either."

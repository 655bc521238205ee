"""The sections of the Grad-CAM page. Everything from the data is escaped."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from vtcav_ray.gradcam import sentences
from vtcav_ray.gradcam.compare import CLIP, Comparison, Interval
from vtcav_ray.gradcam.figures import cell, number, short, table
from vtcav_ray.gradcam.measures import ALIGNED_SIDE
from vtcav_ray.gradcam.overlays import heat, square_png
from vtcav_ray.gradcam.page_data import PageData, Picture
from vtcav_ray.gradcam.sentences import interval_of, with_interval
from vtcav_ray.gradcam.summary import ALL
from vtcav_ray.report.words import count, duration, probability, share, signed, whole

EFFECT = ("effect_logits", "effect_ci_low", "effect_ci_high")
MAX_CLASSES = 12  # of mean maps
MAX_CLIPS = 300
MAX_FAILURES = 100


def header(data: PageData) -> str:
    """The bar at the top."""
    sections = (
        ("summary", "Summary"),
        ("compare", "Side by side"),
        ("pictures", "Pictures"),
        ("measures", "Measures"),
        ("class", "Whole class"),
        ("clips", "Clips"),
    )
    links = "".join(f'<li><a href="#{key}">{word}</a></li>' for key, word in sections)
    if data.report:
        links += f'<li><a href="{escape(data.report)}">Report</a></li>'
    return f"""<a class="skip" href="#summary">Skip to the summary</a>
<header class="top">
<div class="bar">
<p class="brand">Grad-CAM <span class="run-name">{escape(data.title)}</span></p>
<nav aria-label="Sections" tabindex="0"><ul>{links}</ul></nav>
<button type="button" id="theme" class="quiet" title="Light, dark, or as the system">◐</button>
</div>
</header>
"""


def summary(data: PageData) -> str:
    """What the baseline can say, in sentences."""
    points = []
    for mode in dict.fromkeys([*data.modes[:1], *data.modes[-1:]]):
        points.append(sentences.flicker_sentence(data.cells(ALL, data.layer, mode), data.layer, mode))
    if CLIP in data.modes:
        cells = data.cells(ALL, data.layer, CLIP)
        points.append(sentences.direction_sentence(cells, data.layer))
        points.append(sentences.background_sentence(cells, data.layer, CLIP))
        points.append(sentences.sanity_sentence(cells, data.layer, CLIP))
    costs = ", ".join(
        f"{whole(interval_of(data.cells(ALL, data.layer, mode).get('passes')).value)} in the mode {mode}"
        for mode in data.modes
    )
    cost = f"Forward and backward passes for one clip's map: {costs}; Video-TCAV takes one for a class example."
    if data.seconds is not None:
        cost += f" All of it, reversed and with shuffled weights too, took one actor {duration(data.seconds)} a clip."
    points.append(cost)
    videos = len(set(data.clips["video_id"].to_pylist()))
    banner = ""
    if data.untrained:
        banner = (
            '<div class="banner" role="note"><strong>This model is UNTRAINED.</strong> Its weights are random numbers: '
            "the figures show that the machinery works, and nothing else.</div>"
        )
    tiles = [
        (f"{len(set(data.clips['clip_id'].to_pylist())):,}", "clips"),
        (f"{videos:,}", "source videos"),
        (f"{len(set(data.clips['class'].to_pylist())):,}", "classes"),
        (f"{len(data.layers):,}", "layers"),
        (f"{len(data.modes):,}", "modes"),
        (f"{len(data.failures):,}", "failures"),
    ]
    drawn = '<dl class="tiles">' + "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for v, k in tiles) + "</dl>"
    return f"""{banner}<section id="summary" aria-labelledby="summary-title">
<p class="eyebrow">{escape(data.model)} · layer {escape(data.layer)}</p>
<h1 id="summary-title">What <span class="word">Grad-CAM</span> can say of it</h1>
<ul class="points">{_items(points)}</ul>
{drawn}
</section>
"""


def side_by_side(data: PageData) -> str:
    """Grad-CAM and Video-TCAV on the same clips."""
    if not data.comparisons:
        body = (
            '<p class="note">The config names no classes and concepts to compare: give <code>gradcam.compare</code>, '
            "for example <code>[{classes: [lift, put_down], concepts: [moving up/context, moving down/context]}]</code>"
            ".</p>"
        )
    else:
        body = "".join(_pair(data, pair) for pair in data.comparisons)
    return f"""<section id="compare" aria-labelledby="compare-title">
<h2 id="compare-title">The same clips, by both methods</h2>
{body}
</section>
"""


def _pair(data: PageData, pair: Comparison) -> str:
    title = f"{escape(pair.classes[0])} or {escape(pair.classes[1])}"
    layer = data.layer if data.layer in pair.maps else next(iter(pair.maps), None)
    if layer is None:
        return (
            f'<article class="pair"><h3>{title}</h3><p class="note">There are no maps of both classes (mode '
            "<code>clip</code>).</p></article>"
        )
    maps, tcav = pair.maps[layer], pair.tcav.get(layer)
    left = "".join(f"<p>{escape(s)}</p>" for s in sentences.maps_of_pair(pair, maps, layer))
    if tcav is not None:
        right = "".join(f"<p>{escape(s)}</p>" for s in sentences.tcav_of_pair(pair, tcav, layer))
    else:
        right = f"<p>{escape(pair.reason or f'The run has no activations of the layer {layer}.')}</p>"
    videos = f"{maps.videos[0]:,} and {maps.videos[1]:,} source videos"
    return f"""<article class="pair">
<h3>{title}</h3>
<p class="verdict-box">{escape(sentences.verdict(maps, tcav))}</p>
<div class="sides">
<div class="side"><h4>Grad-CAM, {escape(layer)}</h4>{left}</div>
<div class="side"><h4>Video-TCAV, {escape(layer)}</h4>{right}</div>
</div>
{_pair_table(pair)}
{_score_table(pair)}
<p class="note">On {videos}; intervals: 95 %, bootstrap over source videos. AUC: chance that a clip of the one class has
the larger value than one of the other; 0.5 says nothing, 1 tells them apart without a mistake.</p>
</article>
"""


def _pair_table(pair: Comparison) -> str:
    first, second = (escape(name) for name in pair.classes)
    heads = (
        "layer",
        "maps of the two answers: r",
        "of one class: r",
        "AUC of the maps' drift",
        "AUC of the object's",
        f"{first}: effect",
        f"{second}: effect",
        "AUC of the effect",
    )
    rows = []
    for layer, maps in pair.maps.items():
        tcav = pair.tcav.get(layer)
        cells = [
            cell(maps.direction),
            cell(maps.direction_same),
            cell(maps.drift_area),
            share(maps.track_area.value),
        ]
        if tcav is None:
            cells += ["–"] * 3
        else:
            effects = zip(tcav.effect, tcav.p, strict=True)
            cells += [cell(e, sign=True, note=f"p {probability(p)}") for e, p in effects]
            cells.append(cell(tcav.area))
        rows.append([escape(layer), *cells])
    concepts = f"{escape(pair.concepts[0])} against {escape(pair.concepts[1])}"
    return table(
        f"{pair.classes[0]} and {pair.classes[1]}, layer by layer",
        heads,
        rows,
        caption=f"Grad-CAM in the mode clip, and {concepts} in logits",
    )


def _score_table(pair: Comparison) -> str:
    if not pair.scores:
        return ""
    rows = [
        [
            escape(r["layer"]),
            escape(r["class"]),
            escape(r["concept"]),
            with_interval(Interval(*(number(r[k]) for k in EFFECT)), sign=True),
            probability(number(r["effect_q"])),
        ]
        for r in pair.scores
    ]
    drawn = table(
        f"Scores of {pair.classes[0]} and {pair.classes[1]}",
        ("layer", "class", "concept", "effect against random, logits", "q"),
        rows,
    )
    return f"<details><summary>The same concepts against random clips, from the run's scores</summary>{drawn}</details>"


def pictures(data: PageData) -> str:
    """The overlays, one mode at a time."""
    if not data.pictures:
        return ""
    modes = [mode for mode in data.modes if any(p.mode == mode for p in data.pictures)]
    radios = "".join(
        f'<label><input type="radio" name="show" id="show-{m}"{" checked" if m == modes[-1] else ""}>'
        f"<span>{m}</span></label>"
        for m in modes
    )
    return f"""<section id="pictures" aria-labelledby="pictures-title">
<h2 id="pictures-title">What a person sees</h2>
<p class="note">Upper row: the clip. Lower row: the reversed clip's map, played back in the original order. Each
explains the model's own answer, named at the left; where the rows look alike, a person can't see from the picture which
of the two it explains. (A single frame has no reverse: in the mode frame both rows explain the clip's class.) Each map
is scaled by its own largest value; the white frame is the tracked object.</p>
<div class="controls">
<fieldset><legend>Shown to the model</legend><div class="segments">{radios}</div></fieldset>
<button type="button" id="pause" hidden>Pause pictures</button>
</div>
<div class="overlays">
{"".join(_picture(p) for p in data.pictures)}</div>
</section>
"""


def _picture(picture: Picture) -> str:
    source = base64.b64encode(picture.image).decode()
    what = f"{picture.name}, {picture.layer}, mode {picture.mode}"
    return f"""<figure class="overlay" data-mode="{picture.mode}">
<img src="data:image/webp;base64,{source}" width="{picture.width}" height="{picture.height}" alt="Grad-CAM maps of \
{escape(picture.clip_id)}, original above reversed: source, map, both"><canvas aria-hidden="true"></canvas>
<figcaption><strong>{escape(picture.clip_id)}</strong>{escape(what)} · <a href="{escape(picture.mp4)}">mp4</a>\
</figcaption>
</figure>
"""


def whole_class(data: PageData) -> str:
    """Mean maps in the object's own box."""
    rows = [r for r in data.aggregate.to_pylist() if r["layer"] == data.layer] if data.aggregate is not None else []
    names = [n for n in dict.fromkeys(r["class"] for r in rows) if n != ALL][:MAX_CLASSES]
    shown = [
        (r, np.array(r["map"], np.float64).reshape(ALIGNED_SIDE, ALIGNED_SIDE))
        for name in (ALL, *names)
        for mode in data.modes
        for r in rows
        if (r["class"], r["mode"]) == (name, mode)
    ]
    finite = [m[np.isfinite(m)].max() for _, m in shown if np.isfinite(m).any()]
    if not finite:
        body = '<p class="note">No clip has a track that lasts for half of it.</p>'
    else:
        top = float(max(finite))
        cards = ""
        for name in dict.fromkeys(row["class"] for row, _ in shown):
            figures = "".join(_aligned(row, values, top) for row, values in shown if row["class"] == name)
            title = "all classes" if name == ALL else escape(name)
            cards += f'<article class="panel"><h3>{title}</h3><div class="aligned">{figures}</div></article>'
        stops = ", ".join(
            "rgb({},{},{})".format(*heat(np.full((1, 1, 1), x, np.float32), 1.0)[0, 0, 0]) for x in np.linspace(0, 1, 9)
        )
        body = (
            f'<p class="heat-scale"><span>0</span><span class="heat-ramp" style="background:linear-gradient(90deg, '
            f'{stops})"></span><span>{top:.1f} times a map that is the same everywhere</span></p>'
            f'<div class="panels">{cards}</div>'
        )
    return f"""<section id="class" aria-labelledby="class-title">
<h2 id="class-title">The whole class at once</h2>
<p class="note">Mean map at {escape(data.layer)} in the coordinates of the object's own box (white frame), over all
frames of all clips: box and surroundings, three boxes wide and high. Black in a corner: no frame reaches there.</p>
{body}
</section>
"""


def _aligned(row: Mapping[str, Any], values: np.ndarray, top: float) -> str:
    png = base64.b64encode(square_png(np.nan_to_num(values, nan=0.0), top)).decode()
    third = ALIGNED_SIDE // 3
    inside = float(np.nanmean(values[third : 2 * third, third : 2 * third]))
    name = "all classes" if row["class"] == ALL else row["class"]
    return (
        f'<figure><img src="data:image/png;base64,{png}" width="144" height="144" alt="Mean map of {escape(name)}, '
        f"mode {row['mode']}, in the object's box\"><figcaption><strong>{row['mode']}</strong><br>"
        f"{count(row['clips'], 'clip')}; {inside:.2f} times uniform in the box</figcaption></figure>"
    )


def clips(data: PageData) -> str:
    """The clips one by one, and what failed."""
    words = ("clip_id", "predicted", "predicted_reversed")
    figures = ("direction_predicted", "direction", "flicker", "track_flicker", "background_share", "track_agreement")
    columns = (*words, "logit", "logit_change", *figures)
    wanted = [r for r in data.clips.to_pylist() if (r["layer"], r["mode"]) == (data.layer, (data.modes or [""])[-1])]
    rows = [
        [
            escape(str(r[c] or ""))
            if c in columns[:3]
            else signed(number(r[c]))
            if c.startswith("logit")
            else short(number(r[c]))
            for c in columns
        ]
        for r in wanted[:MAX_CLIPS]
    ]
    mode = (data.modes or ["–"])[-1]
    left = f" {len(wanted) - MAX_CLIPS:,} more are in the table." if len(wanted) > MAX_CLIPS else ""
    drawn = table("Clips", [c.replace("_", " ") for c in columns], rows)
    return f"""<section id="clips" aria-labelledby="clips-title">
<h2 id="clips-title">Clip by clip</h2>
<p class="note">At {escape(data.layer)}, mode {escape(mode)}. All layers and modes:
<code>vtcav table RUN gradcam</code>.{left}</p>
<details><summary>{count(len(wanted), "clip")}</summary>{drawn}</details>
<h3>Failures</h3>
{_failures(data.failures)}
</section>
"""


def _failures(failures: Sequence[Mapping[str, Any]]) -> str:
    if not failures:
        return '<p class="muted">None: every clip could be used.</p>'
    columns = ("clip_id", "error_kind", "message")
    rows = [[escape(str(f[c] or "")) for c in columns] for f in failures[:MAX_FAILURES]]
    return table("Failures", ("clip", "kind", "message"), rows)


def definitions(data: PageData) -> str:
    """The words of this page."""
    window = f"{data.window.get('window', '–')} frames at a time, every {data.window.get('stride', '–')} frames"
    words = (
        ("frame, window, clip", "What the model is shown for a map: each frame alone, repeated to a clip; "
         f"{window}, each looped to a clip; the clip as it is."),
        ("map", "ReLU of the sum over channels of (mean gradient of the class's logit) × (activation), as in Grad-CAM "
         "(Selvaraju et al., 2017), time included in the mean; bilinear on the model's input."),
        ("flicker", "Half the summed absolute difference of neighbouring frames' maps, each divided by its sum: the "
         "share of the mass that would have to be moved."),
        ("the object's own box", "The box of the track that moves the furthest, seen as the layer would see it: "
         "averaged to its grid, in time too, and enlarged like a map."),
        ("turned back", "The reversed clip's map, played in the original order. Windows of one frame can't be "
         "reversed: the mode frame has correlation 1 and logit change 0 by construction."),
        ("intervals", "95 %, bootstrap over source videos, expanded as for small samples."),
    )  # fmt: skip
    items = "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in words)
    return f"""<section aria-labelledby="words-title">
<h2 id="words-title">Words</h2>
<dl class="words">{items}</dl>
</section>
"""


def _items(points: Sequence[str]) -> str:
    return "".join(f"<li>{escape(point)}</li>" for point in points)

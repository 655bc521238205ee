"""The sections of the Grad-CAM page. Everything from the data is escaped."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from vtcav_ray.gradcam import sentences
from vtcav_ray.gradcam.compare import CLIP, Comparison, Interval
from vtcav_ray.gradcam.measures import ALIGNED_SIDE
from vtcav_ray.gradcam.overlays import heat, square_png
from vtcav_ray.gradcam.sentences import interval_of, with_interval
from vtcav_ray.gradcam.summary import ALL
from vtcav_ray.report.words import count, duration, probability, share, signed, whole

if TYPE_CHECKING:
    from vtcav_ray.gradcam.page import PageData, Picture

EFFECT = ("effect_logits", "effect_ci_low", "effect_ci_high")
MAX_CLASSES = 12  # of mean maps
MAX_CLIPS = 300
MAX_FAILURES = 100

# (measure, floor, title, what it is, lowest and highest of the axis; None: from the figures)
PANELS: tuple[tuple[str, str | None, str, str, float | None, float | None], ...] = (
    ("flicker", "track_flicker", "Flicker", "Share of a map's mass that moves from one frame to the next. Diamond: the "
     "object's own box.", 0.0, None),
    ("jump", "track_jump", "Jumps", "Way of the map's centre from frame to frame, fraction of the frame. Diamond: the "
     "object's own box.", 0.0, None),
    ("direction_predicted", None, "Direction, the model's answers", "Correlation of the maps of a clip and of its "
     "reverse (turned back), each for the model's own answer. 1: the same picture for both directions.", -1.0, 1.0),
    ("direction", None, "Direction, one class", "The same, both for the clip's own class.", -1.0, 1.0),
    ("logit_change", None, "Logit change on reversal", "Of the clip's own class. What the maps would have to show.",
     None, None),
    ("background_share", "background_chance", "Background", "Share of the map's mass outside of all tracked boxes. "
     "Diamond: a map that is the same everywhere.", 0.0, 1.0),
    ("track_agreement", None, "Agreement with the track", "Correlation of the map with the object's own box, both at "
     "the layer's resolution.", -1.0, 1.0),
    ("shuffled_weights_similarity", None, "Shuffled weights", "Correlation with the map of the same model with "
     "shuffled weights. Near 0: the map depends on what was learnt.", -1.0, 1.0),
)  # fmt: skip


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
            _cell(maps.direction),
            _cell(maps.direction_same),
            _cell(maps.drift_area),
            share(maps.track_area.value),
        ]
        if tcav is None:
            cells += ["–"] * 3
        else:
            effects = zip(tcav.effect, tcav.p, strict=True)
            cells += [_cell(e, sign=True, note=f"p {probability(p)}") for e, p in effects]
            cells.append(_cell(tcav.area))
        rows.append([escape(layer), *cells])
    concepts = f"{escape(pair.concepts[0])} against {escape(pair.concepts[1])}"
    return _table(
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
            with_interval(Interval(*(_number(r[k]) for k in EFFECT)), sign=True),
            probability(_number(r["effect_q"])),
        ]
        for r in pair.scores
    ]
    table = _table(
        f"Scores of {pair.classes[0]} and {pair.classes[1]}",
        ("layer", "class", "concept", "effect against random, logits", "q"),
        rows,
    )
    return f"<details><summary>The same concepts against random clips, from the run's scores</summary>{table}</details>"


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


def measures(data: PageData) -> str:
    """A panel a measure: layers and modes as rows, the mean with its interval, and the floor."""
    panels = "".join(_panel(data, *panel) for panel in PANELS)
    return f"""<section id="measures" aria-labelledby="measures-title">
<h2 id="measures-title">Measures</h2>
<ul class="keys"><li><span class="point"></span>mean over source videos</li><li><span class="reach"></span>95 % interval
</li><li><span class="floor"></span>what it is compared with</li></ul>
<div class="panels">{panels}</div>
{_by_class(data)}
</section>
"""


def _panel(
    data: PageData, measure: str, floor: str | None, title: str, text: str, low: float | None, high: float | None
) -> str:
    found = {(layer, mode): data.cells(ALL, layer, mode) for layer in data.layers for mode in data.modes}
    figures = [interval_of(cells.get(m)) for cells in found.values() for m in (measure, floor) if m is not None]
    ends = [v for f in figures for v in f if math.isfinite(v)]
    if not ends:
        return ""
    low = min(0.0, *ends) if low is None else low
    high = max(0.0, *ends) if high is None else high
    rows = ""
    for layer in data.layers:
        rows += f"<h4>{escape(layer)}</h4>"
        for mode in data.modes:
            cells = found[layer, mode]
            rows += _row(mode, interval_of(cells.get(measure)), interval_of(cells.get(floor or "")), low, high)
    return f'<article class="panel"><h3>{title}</h3><p>{text}</p>{rows}</article>'


def _row(mode: str, figure: Interval, floor: Interval, low: float, high: float) -> str:
    width = high - low or 1.0

    def at(value: float) -> str:
        return f"{100 * min(max((value - low) / width, 0.0), 1.0):.2f}%"

    marks = ""
    if low < 0 < high:
        marks += f'<i class="zero" style="--at:{at(0.0)}"></i>'
    words = f"{mode}: {_written(figure)}"
    if math.isfinite(figure.low):
        span = min(figure.high, high) - max(figure.low, low)
        marks += f'<i class="reach" style="--from:{at(figure.low)};--span:{100 * max(span, 0) / width:.2f}%"></i>'
    if math.isfinite(floor.value):
        marks += f'<i class="floor" style="--at:{at(floor.value)}"></i>'
        words += f"; compared with {_short(floor.value)}"
    if math.isfinite(figure.value):
        marks += f'<i class="point" style="--at:{at(figure.value)}"></i>'
    ends = "" if not math.isfinite(figure.low) else f" <small>[{_short(figure.low)}, {_short(figure.high)}]</small>"
    return (
        f'<div class="row"><span>{mode}</span><span class="track" role="img" aria-label="{words}">{marks}</span>'
        f'<span class="figure">{_short(figure.value)}{ends}</span></div>'
    )


def _written(figure: Interval) -> str:
    ends = "" if not math.isfinite(figure.low) else f", interval {_short(figure.low)} to {_short(figure.high)}"
    return _short(figure.value) + ends


def _short(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    text = f"{value:.3f}" if abs(value) < 0.095 else f"{value:.2f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def _by_class(data: PageData) -> str:
    names = [n for n in dict.fromkeys(data.summary["class"].to_pylist()) if n != ALL]
    rows = []
    for name in sorted(names):
        for mode in data.modes:
            cells = data.cells(name, data.layer, mode)
            shown = [with_interval(interval_of(cells.get(m[0])), sign=m[0] == "logit_change") for m in PANELS]
            rows.append([escape(name), mode, *shown])
    heads = ("class", "mode", *(panel[2] for panel in PANELS))
    table = _table(f"Measures by class at {data.layer}", heads, rows)
    return f"<details><summary>Class by class, at {escape(data.layer)}</summary>{table}</details>"


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
            else signed(_number(r[c]))
            if c.startswith("logit")
            else _short(_number(r[c]))
            for c in columns
        ]
        for r in wanted[:MAX_CLIPS]
    ]
    mode = (data.modes or ["–"])[-1]
    left = f" {len(wanted) - MAX_CLIPS:,} more are in the table." if len(wanted) > MAX_CLIPS else ""
    table = _table("Clips", [c.replace("_", " ") for c in columns], rows)
    return f"""<section id="clips" aria-labelledby="clips-title">
<h2 id="clips-title">Clip by clip</h2>
<p class="note">At {escape(data.layer)}, mode {escape(mode)}. All layers and modes:
<code>vtcav table RUN gradcam</code>.{left}</p>
<details><summary>{count(len(wanted), "clip")}</summary>{table}</details>
<h3>Failures</h3>
{_failures(data.failures)}
</section>
"""


def _failures(failures: Sequence[Mapping[str, Any]]) -> str:
    if not failures:
        return '<p class="muted">None: every clip could be used.</p>'
    columns = ("clip_id", "error_kind", "message")
    rows = [[escape(str(f[c] or "")) for c in columns] for f in failures[:MAX_FAILURES]]
    return _table("Failures", ("clip", "kind", "message"), rows)


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


def _cell(figure: Interval, *, sign: bool = False, note: str = "") -> str:
    """A figure over its interval."""
    value, _, ends = with_interval(figure, sign=sign).partition(" [")
    below = " ".join(escape(part) for part in (f"[{ends}" if ends else "", note) if part)
    return f'<span class="value">{value}</span>' + (f'<br><small class="ends">{below}</small>' if below else "")


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _table(label: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "") -> str:
    """Cells are HTML already; the label is not."""
    head = "".join(f'<th scope="col">{h}</th>' for h in heads)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>" for row in rows
    )
    titled = f"<caption>{caption}</caption>" if caption else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table class="plain">{titled}'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )

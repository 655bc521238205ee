"""Figures of the Grad-CAM page: the measures' panels, and how a figure stands in a table. All of it is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from vtcav_ray.gradcam.compare import Interval
from vtcav_ray.gradcam.page_data import PageData
from vtcav_ray.gradcam.sentences import interval_of, with_interval
from vtcav_ray.gradcam.summary import ALL

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
        words += f"; compared with {short(floor.value)}"
    if math.isfinite(figure.value):
        marks += f'<i class="point" style="--at:{at(figure.value)}"></i>'
    ends = "" if not math.isfinite(figure.low) else f" <small>[{short(figure.low)}, {short(figure.high)}]</small>"
    return (
        f'<div class="row"><span>{mode}</span><span class="track" role="img" aria-label="{words}">{marks}</span>'
        f'<span class="figure">{short(figure.value)}{ends}</span></div>'
    )


def _written(figure: Interval) -> str:
    ends = "" if not math.isfinite(figure.low) else f", interval {short(figure.low)} to {short(figure.high)}"
    return short(figure.value) + ends


def short(value: float) -> str:
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
    drawn = table(f"Measures by class at {data.layer}", heads, rows)
    return f"<details><summary>Class by class, at {escape(data.layer)}</summary>{drawn}</details>"


def cell(figure: Interval, *, sign: bool = False, note: str = "") -> str:
    """A figure over its interval."""
    value, _, ends = with_interval(figure, sign=sign).partition(" [")
    below = " ".join(escape(part) for part in (f"[{ends}" if ends else "", note) if part)
    return f'<span class="value">{value}</span>' + (f'<br><small class="ends">{below}</small>' if below else "")


def number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def table(label: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "") -> str:
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

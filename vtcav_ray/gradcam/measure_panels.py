"""The panels of the Grad-CAM page: each measure by layer and mode, with its mean, interval and reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vtcav_ray.gradcam.compare import Interval
from vtcav_ray.gradcam.page_data import PageData
from vtcav_ray.gradcam.sentences import interval_of, with_interval
from vtcav_ray.gradcam.summary import ALL


@dataclass(frozen=True)
class Measure:
    """A measure that has a panel.

    Attributes:
        name: column of `gradcam_summary`.
        title, text: text of the panel.
        floor: the measure to compare it with; empty: none.
        low, high: ends of the axis; None: derived from the figures.
    """

    name: str
    title: str
    text: str
    floor: str = ""
    low: float | None = None
    high: float | None = None


MEASURES = (
    Measure("flicker", "Flicker", "Share of a map's mass that moves from one frame to the next. Diamond: the object's "
            "own box.", "track_flicker", 0.0),
    Measure("jump", "Jumps", "Distance of the map's centre between frames, fraction of the frame. Diamond: the "
            "object's own box.", "track_jump", 0.0),
    Measure("direction_predicted", "Direction, the model's answers", "Correlation of the maps of a clip and of its "
            "reverse (turned back), each for the model's own answer. 1: the same picture for both directions.",
            low=-1.0, high=1.0),
    Measure("direction", "Direction, one class", "The same, both for the clip's own class.", low=-1.0, high=1.0),
    Measure("logit_change", "Logit change on reversal", "For the clip's own class. The maps would have to show it."),
    Measure("background_share", "Background", "Share of the map's mass outside of all tracked boxes. Diamond: a map "
            "that is the same everywhere.", "background_chance", 0.0, 1.0),
    Measure("track_agreement", "Agreement with the track", "Correlation of the map with the object's own box, both at "
            "the layer's resolution.", low=-1.0, high=1.0),
    Measure("shuffled_weights_similarity", "Shuffled weights", "Correlation with the map of the same model with "
            "shuffled weights. Near 0: the map depends on what was learnt.", low=-1.0, high=1.0),
)  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """A mark on a panel's axis: its CSS class, and its position in percent of the axis."""

    name: str
    at: float
    span: float = 0.0


@dataclass(frozen=True)
class PanelRow:
    """One mode: its marks, the same in words, the figure, and its interval (empty: not known)."""

    mode: str
    words: str
    marks: Sequence[Mark]
    value: str
    ends: str


@dataclass(frozen=True)
class Panel:
    """A measure with its rows: (layer, one row per mode)."""

    measure: Measure
    layers: Sequence[tuple[str, Sequence[PanelRow]]]


def panels(data: PageData) -> list[Panel]:
    """Return one panel per measure that has figures."""
    found = [_panel(data, measure) for measure in MEASURES]
    return [panel for panel in found if panel is not None]


def by_class(data: PageData) -> list[list[str]]:
    """Return one row per class and mode at the page's layer: the class, the mode, then every measure."""
    rows = []
    for name in sorted(n for n in dict.fromkeys(data.summary["class"].to_pylist()) if n != ALL):
        for mode in data.modes:
            cells = data.cells(name, data.layer, mode)
            shown = [with_interval(interval_of(cells.get(m.name)), sign=m.name == "logit_change") for m in MEASURES]
            rows.append([name, mode, *shown])
    return rows


def short(value: float) -> str:
    """Write a figure with two decimals, or three below 0.095."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:.3f}" if abs(value) < 0.095 else f"{value:.2f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def _panel(data: PageData, measure: Measure) -> Panel | None:
    found = {
        (layer, mode): (interval_of(cells.get(measure.name)), interval_of(cells.get(measure.floor)))
        for layer in data.layers
        for mode in data.modes
        for cells in [data.cells(ALL, layer, mode)]
    }
    ends = [end for pair in found.values() for figure in pair for end in figure if math.isfinite(end)]
    if not ends:
        return None
    low = min(0.0, *ends) if measure.low is None else measure.low
    high = max(0.0, *ends) if measure.high is None else measure.high
    rows = [(layer, [_row(mode, *found[layer, mode], low, high) for mode in data.modes]) for layer in data.layers]
    return Panel(measure, rows)


def _row(mode: str, figure: Interval, floor: Interval, low: float, high: float) -> PanelRow:
    width = high - low or 1.0

    def at(value: float) -> float:
        return 100 * min(max((value - low) / width, 0.0), 1.0)

    marks = [Mark("zero", at(0.0))] if low < 0 < high else []
    words = f"{mode}: {short(figure.value)}"
    ends = ""
    if math.isfinite(figure.low):
        span = min(figure.high, high) - max(figure.low, low)
        marks.append(Mark("reach", at(figure.low), 100 * max(span, 0) / width))
        words += f", interval {short(figure.low)} to {short(figure.high)}"
        ends = f"[{short(figure.low)}, {short(figure.high)}]"
    if math.isfinite(floor.value):
        marks.append(Mark("floor", at(floor.value)))
        words += f"; compared with {short(floor.value)}"
    if math.isfinite(figure.value):
        marks.append(Mark("point", at(figure.value)))
    return PanelRow(mode, words, marks, short(figure.value), ends)

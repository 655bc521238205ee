"""`maps.html` in the run folder: one self-contained file in the report's style, in plain HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vtcav_ray.maps import PAGE
from vtcav_ray.pages import Shell, asset, render
from vtcav_ray.pages.render import HERE, SAVING, function
from vtcav_ray.pages.wording import equals, percent, share, signed
from vtcav_ray.runs.run import Run
from vtcav_ray.scores.choose import CellKey
from vtcav_ray.tables import CELL_KEY

ROOM = "vtcav_ray.maps"
SECTIONS = (("summary", "Summary"), ("cells", "Clips"), ("words", "Words"))
HEADS = (*CELL_KEY, "deletion", "points to box", "in box", "with speed", "videos")
FAILURES = ("clip_id", "error_kind", "message")
MAX_FAILURES = 100


@dataclass(frozen=True)
class Picture:
    """An overlay: animated WebP bytes, the address of its .mp4 relative to the page, and its size in pixels."""

    clip_id: str
    image: bytes
    mp4: str
    height: int
    width: int


@dataclass(frozen=True)
class CellMaps:
    """The maps of one cell; `row`: its row of `maps_summary`; `score`: its row of `scores`."""

    row: Mapping[str, Any]
    score: Mapping[str, Any]
    pictures: Sequence[Picture] = ()

    @property
    def finding(self) -> str:
        """The effect, in a sentence."""
        effect, row = self.score["effect"], self.row
        if self.score["significant"]:
            verb = f"{'raises' if effect > 0 else 'lowers'} {row['class']} by {signed(abs(effect)).lstrip('+')} logits"
        else:
            verb = f"is not shown to move {row['class']}"
        return f"{row['concept']} {verb} at {row['layer']} (q {equals(_number(self.score['q']))})."

    @property
    def verdict(self) -> str:
        """Whether the map shows where, in a sentence."""
        row = self.row
        if not row["localised"]:
            return str(row["note"])
        return (
            f"Localised at this layer: deleting what the map points to removes more of the concept than "
            f"{percent(row['deletion'])} of the deletions elsewhere "
            f"[{percent(row['deletion_low'])}, {percent(row['deletion_high'])}]."
        )


@dataclass(frozen=True)
class MapsData:
    """Everything that the page shows, as plain values.

    Attributes:
        title: the run's name.
        cells: the clearest first.
        failures: failures of this stage.
        warnings: of the stage.
        model: `<checkpoint>@<digest>`.
        untrained: the weights are random.
        report: address of the report beside the page; empty: no report.
    """

    title: str
    cells: Sequence[CellMaps]
    failures: Sequence[Mapping[str, Any]] = ()
    warnings: Sequence[str] = ()
    model: str = ""
    untrained: bool = False
    report: str = ""


def write_page(run: Run) -> None:
    """Write `maps.html` into the run folder.

    Raises:
        ConfigError: the run has no complete stage `maps`.
    """
    run.folder.write_bytes(PAGE, build_page(page_data(run)).encode())


def page_data(run: Run) -> MapsData:
    """Read what the page shows from a run's tables. Maps that are not localised have no pictures."""
    manifest, folder = run.manifest("maps"), run.stage("maps")
    scores = {_key(row): row for row in run.table("scores").to_pylist()}
    table = folder.read("map_overlays")
    drawn = [] if table is None else table.to_pylist()
    cells = []
    for row in run.table("maps_summary").to_pylist():
        pictures = [
            Picture(
                one["clip_id"],
                folder.folder.read_bytes(one["webp"]),
                f"maps/{folder.key}/{one['mp4']}",
                one["height"],
                one["width"],
            )
            for one in drawn
            if row["localised"] and _key(one) == _key(row)
        ]
        cells.append(CellMaps(row, scores[_key(row)], pictures))
    cells.sort(key=lambda cell: -abs(_number(cell.score["z"])) if cell.score["z"] is not None else 0.0)
    return MapsData(
        title=run.config.name,
        cells=cells,
        failures=[row for row in run.table("failures").to_pylist() if row["stage"] == "maps"],
        warnings=manifest["warnings"],
        model=manifest["notes"]["model"],
        untrained=manifest["notes"]["untrained"],
        report="report.html" if run.folder.exists("report.html") else "",
    )


def build_page(data: MapsData) -> str:
    """Build the page as one HTML file that opens from disk and loads nothing from the network."""
    shell = Shell(
        title=f"{data.title} · Concept maps",
        styles=[asset(HERE, "page.css", "overlays.css")],
        scripts=[function(asset(HERE, "theme.js", *SAVING, "overlays.js"))],
        images=True,
    )
    return render(
        ROOM,
        "maps.html",
        shell=shell,
        data=data,
        sections=SECTIONS,
        links=[(data.report, "Report")] if data.report else [],
        heads=HEADS,
        rows=[figures(cell.row) for cell in data.cells],
        failures=[[str(row[name] or "") for name in FAILURES] for row in data.failures[:MAX_FAILURES]],
    )


def figures(row: Mapping[str, Any]) -> list[str]:
    """Return a row of `maps_summary` as text, in the order of `HEADS`."""
    names = ("deletion", "pointing", "inside", "timing")
    return [*(row[name] for name in CELL_KEY), *(with_interval(row, name) for name in names), str(row["n_present"])]


def with_interval(row: Mapping[str, Any], name: str) -> str:
    """Write a figure of `maps_summary` with its interval; –: not known."""
    values = [row[name], row[f"{name}_low"], row[f"{name}_high"]]
    if values[0] is None:
        return "–"
    write = share if name == "deletion" else signed
    ends = "" if values[1] is None else f" [{write(values[1])}, {write(values[2])}]"
    return (write(values[0]) + ends).replace("-", "−")


def _key(row: Mapping[str, Any]) -> CellKey:
    return CellKey(*(row[name] for name in CELL_KEY))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)

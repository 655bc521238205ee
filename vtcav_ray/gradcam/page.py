"""`gradcam.html` in the run folder: one self-contained file in the report's style, in plain HTML.

The figures come from the tables. `sentences` explains them, `sections` collects them, `templates/` has the markup.
"""

from __future__ import annotations

from vtcav_ray.gradcam import PAGE, measure_panels, sections
from vtcav_ray.gradcam.compare import compare_methods
from vtcav_ray.gradcam.page_data import PageData, Picture
from vtcav_ray.pages import Shell, asset, render
from vtcav_ray.pages.render import HERE, SAVING, function
from vtcav_ray.runs.run import Run

ROOM = "vtcav_ray.gradcam"
RECORD = "gradcam.json"
MAX_PICTURES = 48  # about 100 kB each
SECTIONS = (
    ("summary", "Summary"),
    ("compare", "Side by side"),
    ("pictures", "Pictures"),
    ("measures", "Measures"),
    ("class", "Whole class"),
    ("clips", "Clips"),
)


def write_page(run: Run) -> None:
    """Write `gradcam.html` into the run folder.

    Raises:
        ConfigError: the run has no complete stage `gradcam`.
    """
    run.folder.write_bytes(PAGE, build_page(page_data(run)).encode())


def page_data(run: Run) -> PageData:
    """Read what the page shows from a run's tables."""
    manifest, folder = run.manifest("gradcam"), run.stage("gradcam")
    record = run.folder.read_json(RECORD)
    clips = run.table("gradcam")
    clip_count = manifest["metrics"].get("clips", 0)
    pictures = []
    drawn = folder.read("overlays")
    for row in (drawn.to_pylist() if drawn is not None else [])[:MAX_PICTURES]:
        pictures.append(
            Picture(
                row["clip_id"],
                row["class"],
                row["mode"],
                row["layer"],
                folder.folder.read_bytes(row["webp"]),
                f"gradcam/{folder.key}/{row['mp4']}",
                row["height"],
                row["width"],
            )
        )
    given = manifest["ingredients"]["gradcam"]
    return PageData(
        title=run.config.name,
        layer=record["layer"],
        clips=clips,
        summary=run.table("gradcam_summary"),
        aggregate=folder.read("aggregate"),
        comparisons=[
            compare_methods(run, clips, tuple(pair["classes"]), tuple(pair["concepts"])) for pair in record["compare"]
        ],
        pictures=pictures,
        failures=[row for row in run.table("failures").to_pylist() if row["stage"] == "gradcam"],
        seconds=manifest["metrics"].get("clip_seconds", 0) / clip_count if clip_count else None,
        model=manifest["notes"]["model"],
        untrained=manifest["notes"]["untrained"],
        report="report.html" if run.folder.exists("report.html") else "",
        window={"window": given["window"], "stride": given["stride"]},
        place=given.get("place"),
        places=run.table("gradcam_places_summary").to_pylist() if given.get("place") is not None else (),
    )


def build_page(data: PageData) -> str:
    """Build the page as one HTML file that opens from disk and loads nothing from the network."""
    shell = Shell(
        title=f"{data.title} · Grad-CAM beside Video-TCAV",
        styles=[asset(HERE, "page.css", "overlays.css"), asset(ROOM, "gradcam.css")],
        scripts=[function(asset(HERE, "theme.js", *SAVING, "overlays.js"))],
        images=True,
        inline_styles=True,
    )
    return render(
        ROOM,
        "gradcam.html",
        shell=shell,
        data=data,
        sections=SECTIONS,
        links=[(data.report, "Report")] if data.report else [],
        points=sections.points(data),
        tiles=sections.tiles(data),
        pairs=[sections.pair(data, compared) for compared in data.comparisons],
        panels=measure_panels.panels(data),
        class_heads=("class", "mode", *(measure.title for measure in measure_panels.MEASURES)),
        class_rows=measure_panels.by_class(data),
        place=sections.place(data),
        mean_maps=sections.mean_maps(data),
        clip_heads=[name.replace("_", " ") for name in sections.CLIP_COLUMNS],
        clips=sections.clip_rows(data),
        failures=sections.failure_rows(data),
    )

"""`vtcav gradcam`: run the stage and print its results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vtcav_ray.cli.terminal import printable
from vtcav_ray.config.loading import load_config

if TYPE_CHECKING:
    from vtcav_ray.runs.run import Run

SHOWN = ("flicker", "track_flicker", "jump", "track_jump", "direction", "background_share", "background_chance",
         "track_agreement", "shuffled_weights_similarity", "passes")  # fmt: skip


def run_command(
    config: str,
    out: str | None,
    overrides: Sequence[str],
    limit: int | None,
    console: Console,
    errors: Console,
    *,
    trust_code: bool = False,
) -> int:
    """Run Grad-CAM and print its summary (see `vtcav_ray.gradcam.run.run_gradcam`).

    Args:
        config, out, overrides, trust_code: as for `vtcav run`.
        limit: replaces `gradcam.max_clips`.
        console, errors: where to print.

    Returns:
        The exit status.
    """
    limits = [f"gradcam.max_clips={limit}"] if limit is not None else []
    # Before the slow imports, to report a typo at once.
    settings = load_config(config, [*overrides, *limits], out=out, trust_code=trust_code)

    from vtcav_ray.cli.progress import TerminalProgress
    from vtcav_ray.cli.run import status_of
    from vtcav_ray.gradcam.run import run_gradcam
    from vtcav_ray.gradcam.summary import ALL

    with TerminalProgress(console) as progress:
        result = run_gradcam(settings, progress)
    rows = [row for row in result.table("gradcam_summary").to_pylist() if row["class"] == ALL]
    shown = Table(caption="Means over source videos; intervals: table gradcam_summary", caption_justify="left")
    for name in ("layer", "mode", "videos", *SHOWN):
        shown.add_column(name.replace("_", " "), justify="left" if name in ("layer", "mode") else "right")
    for layer, mode in dict.fromkeys((row["layer"], row["mode"]) for row in rows):
        cells = {row["measure"]: row for row in rows if (row["layer"], row["mode"]) == (layer, mode)}
        figures = ["–" if cells[m]["mean"] is None else f"{cells[m]['mean']:.3g}" for m in SHOWN]
        shown.add_row(layer, mode, str(cells["logit"]["n"]), *figures)
    console.print(shown)
    if settings.gradcam.place is not None:
        console.print(_place_table(result))
    manifest = result.manifest("gradcam")
    failed = sum(1 for row in result.table("failures").to_pylist() if row["stage"] == "gradcam")
    if failed:
        console.print(f"{failed} clips failed: vtcav table {result.url} failures", soft_wrap=True)
    if manifest["notes"]["untrained"]:
        console.print("The model is UNTRAINED: these are the maps of random weights.", style="bold red")
    console.print(f"Page: {result.url.rstrip('/')}/gradcam.html", soft_wrap=True)
    return status_of(result, settings.max_failed_fraction, errors)


def _place_table(run: Run) -> Table:
    """Return the shares of the maps in `gradcam.place`, by class."""
    shown = Table(caption="Maps' mass in the place: median over source videos, 95 % interval", caption_justify="left")
    for name in ("class", "layer", "mode", "share of map", "interval", "share of area", "videos"):
        shown.add_column(name, justify="left" if name in ("class", "layer", "mode") else "right")
    for row in run.table("gradcam_places_summary").to_pylist():
        share, low, high, area = (
            "–" if row[name] is None else f"{row[name]:.1%}" for name in ("median", "ci_low", "ci_high", "area")
        )
        names = (Text(printable(row[name])) for name in ("class", "layer", "mode"))
        shown.add_row(*names, share, f"{low} to {high}", area, str(row["n"]))
    return shown

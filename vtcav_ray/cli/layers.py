"""`vtcav layers CONFIG`: list a recogniser's layers, as a table for people or as JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from vtcav_ray.cli.tables import print_wide
from vtcav_ray.config import Config
from vtcav_ray.models import load_recogniser
from vtcav_ray.models.layer_table import LayerRow, layer_table

LEGEND = (
    "shape: T'xH'xW'xC, as the projections see it. cost: a forward pass, and a backward pass down to the layer, in "
    "forward passes.\ndegenerate: the gradient is the same for every clip, so a sign count there is 0 or 1 "
    "for any concept."
)


def print_layers(config: Config, names: Sequence[str] | None, depth: int, out: Console | None) -> None:
    """Build the config's recogniser and print its layers (`layer_table`); without a console, as JSON to stdout.

    Raises:
        ConfigError: no such config, checkpoint or layer.
        StageError: the checkpoint can't be read, or does not fit the model.
    """
    recogniser = load_recogniser(config.model, seed=config.seed)
    rows = layer_table(recogniser, names, depth=depth, frames=config.clips.frames)
    if out is None:
        found = {
            "model": recogniser.description.tag,
            "untrained": recogniser.untrained,
            "input": [config.clips.frames, *recogniser.input_size],
            "layers": [dataclasses.asdict(row) for row in rows],
        }
        print(json.dumps(found, indent=1))
        return
    height, width = recogniser.input_size
    print_wide(as_table(rows, f"{recogniser.description.tag}, input {config.clips.frames}x{height}x{width}"), out)
    out.print(LEGEND, highlight=False, soft_wrap=True)


def as_table(rows: Sequence[LayerRow], title: str) -> Table:
    """Return the rows as a table, in the order in which the layers run."""
    table = Table(title=title, title_justify="left")
    for name in ("layer", "alias", "shape", "numbers", "parameters", "cost", ""):
        numeric = name in ("numbers", "parameters", "cost")
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        t, h, w, c = row.shape
        table.add_row(
            row.name,
            row.alias,
            f"{t}x{h}x{w}x{c}",
            f"{t * h * w * c:,}",
            f"{row.parameters:,}",
            f"{row.cost:.2f}",
            "degenerate" if row.degenerate else "",
            style="bold" if row.alias else None,
        )
    return table

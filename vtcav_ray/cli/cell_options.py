"""The options of commands that choose cells (comparisons, for users) of a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vtcav_ray.config import Config
    from vtcav_ray.runs.run import Run

Classes = Annotated[list[str] | None, typer.Option("--class", help="only this class; repeatable")]
Layers = Annotated[list[str] | None, typer.Option("--layer", help="only this layer; repeatable")]
Concepts = Annotated[list[str] | None, typer.Option("--concept", help="`<name>/<kind>`; repeatable")]
Against = Annotated[str, typer.Option(help="`random`, `rest of <kind>`, or another concept")]
Cells = Annotated[str, typer.Option(help="which comparisons: `significant`, or `all` that match")]


def only_significant(cells: str) -> bool:
    """Return whether `--cells` is `significant`; it may also be `all`.

    Raises:
        typer.BadParameter: it is something else.
    """
    if cells not in ("significant", "all"):
        raise typer.BadParameter(f"{cells!r}: choose significant or all", param_hint="--cells")
    return cells == "significant"


def reopened_run(
    run_url: str, overrides: Sequence[str] | None, options: str | None, trust_code: bool
) -> tuple[Run, Config]:
    """Open a finished run and its config, with the options of the command."""
    from vtcav_ray.config.loading import read_options
    from vtcav_ray.watch.rerun import reopened

    run, config, _ = reopened(run_url, overrides or (), read_options(options), trust_code=trust_code)
    return run, config

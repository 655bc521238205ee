"""`vtcav explain`: explain single videos, and print the explanations as text or JSON, or write a page."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vtcav_ray.cli.options import Overrides, StorageFile, TrustCode
from vtcav_ray.cli.terminal import printable, printable_lines
from vtcav_ray.errors import EXIT_TOO_MANY_FAILED, ConfigError

if TYPE_CHECKING:
    from vtcav_ray.why import Explanation

MAX_ROWS = 10


def register(app: typer.Typer, out: Console, err: Console) -> None:
    """Add the command to `app`; it prints to `out`, and failures to `err`."""

    @app.command()
    def explain(
        run_url: Annotated[str, typer.Argument(metavar="RUN", help="run folder")],
        videos: Annotated[
            list[str], typer.Argument(metavar="VIDEO...", help="ids of the run's videos, or any files or URLs")
        ],
        as_json: Annotated[
            bool, typer.Option("--json", help="print one JSON object per video, and nothing else")
        ] = False,
        page: Annotated[str | None, typer.Option("--html", help="also write a page to this file")] = None,
        overrides: Overrides = None,
        options: StorageFile = None,
        trust_code: TrustCode = False,
    ) -> None:
        """Explain single videos: which concepts are there, and how far each pushes the model's answer."""
        from vtcav_ray.config.loading import read_options
        from vtcav_ray.watch.rerun import reopened
        from vtcav_ray.why import explain_videos

        run, config, _ = reopened(run_url, overrides or (), read_options(options), trust_code=trust_code)
        found = explain_videos(run, config, videos)
        if page is not None:
            from vtcav_ray.why.page import build_page

            _write(page, build_page(found.explanations, config.name, found.failures))
        for explanation in found.explanations:
            if as_json:
                sys.stdout.write(json.dumps(explanation.as_json(), ensure_ascii=False, allow_nan=False) + "\n")
            else:
                print_explanation(explanation, out)
        if page is not None and not as_json:
            out.print(f"Page: {page}", soft_wrap=True, highlight=False)
        for video, message in found.failures:
            line = f"vtcav: {video} is not explained: {message}"
            err.print(Text(printable_lines(line)), soft_wrap=True, highlight=False)
        if found.failures:
            raise typer.Exit(EXIT_TOO_MANY_FAILED)


def print_explanation(explanation: Explanation, console: Console) -> None:
    """Print one video's answer, and the concepts with the largest weights."""
    from vtcav_ray.pages.wording import signed
    from vtcav_ray.why.page import verdict

    console.print(Text(printable(f"{explanation.video}: {verdict(explanation)}")), soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name in ("concept", "layer"):
        table.add_column(name, overflow="fold")  # names are never cut: they tell rows apart
    for name in ("presence", "push", "95 % of runs", "on the runner-up", "weight"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in explanation.concepts[:MAX_ROWS]:
        figures = (
            f"{one.presence:.0%}",
            signed(one.push),
            f"{signed(one.ci_low)} … {signed(one.ci_high)}",
            signed(one.push_runner_up),
            signed(one.weight),
        )
        table.add_row(*(Text(printable(text)) for text in (one.concept, one.layer, *figures)))
    target = explanation.target.replace("_", " ")
    table.caption = (
        f"push: change of the {target} of {printable(explanation.predicted)}; weight: presence x (push - push on the "
        f"runner-up, {printable(explanation.runner_up)}); numbers from {printable(explanation.source)}"
    )
    table.caption_justify = "left"
    console.print(table)


def _write(file: str, page: str) -> None:
    try:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The page can't be written to {file}: {error.strerror}. Choose another --html.") from error

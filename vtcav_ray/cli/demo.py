"""`vtcav demo` and `vtcav open`: the quickstart from the installed package, and a run's report in the browser."""

from __future__ import annotations

import shlex
import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vtcav_ray.cli.options import RunUrl, StorageFile
from vtcav_ray.cli.run_commands import opened
from vtcav_ray.errors import ConfigError

QUICKSTART = "asset:quickstart.yaml"


def register(app: typer.Typer, out: Console, err: Console) -> None:
    """Add the commands to `app`."""

    @app.command()
    def demo(
        folder: Annotated[str, typer.Option("--out", help="run folder, any fsspec URL")] = "runs/demo",
        overrides: Annotated[
            list[str] | None, typer.Option("--set", help="key=value, for example videos.world.videos=100")
        ] = None,
    ) -> None:
        """Run Video-TCAV on the planted world, whose truth is known. Needs no videos, no GPU and no download."""
        from vtcav_ray.config.loading import load_config, shown_override

        config = load_config(QUICKSTART, overrides or (), out=folder)
        from vtcav_ray.cli.run import RunOptions, run_and_print

        words = [
            "vtcav",
            "demo",
            "--out",
            folder,
            *(word for o in overrides or () for word in ("--set", shown_override(o))),
        ]
        status = run_and_print(config, RunOptions(), again=shlex.join(words), console=out, errors=err)
        out.print(f"Open its report: vtcav open {shlex.quote(folder)}", soft_wrap=True, highlight=False)
        out.print("What the report should say: docs/planted_answer.md. Your own videos: vtcav init mine.yaml")
        raise typer.Exit(status)

    @app.command("open")
    def open_(run_url: RunUrl, options: StorageFile = None) -> None:
        """Open a run's report in the browser."""
        out.print(open_report(run_url, options), soft_wrap=True, highlight=False)


def open_report(run_url: str, storage_file: str | None = None) -> str:
    """Open a run's report in the default browser, if there is one here. Return a line for the user.

    Raises:
        ConfigError: there is no run, or it has no report yet.
    """
    run = opened(run_url, storage_file)
    if not run.folder.exists("report.html"):
        raise ConfigError(
            f"The run at {run.url} has no report yet; its status is `{run.record.get('status')}`. Run it again: it "
            f"resumes. `vtcav status {run.url}` shows how far it is."
        )
    if "://" in run.url:
        return f"The report is one file. Copy it, and open it in a browser: {run.report_url}"
    page = Path(run.report_url)
    if webbrowser.open(page.as_uri()):
        return f"Report: {page}"
    return f"There is no browser here. The report is one file. Open it in a browser on your machine: {page}"

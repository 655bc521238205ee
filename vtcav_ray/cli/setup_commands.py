"""Commands before a run: init, world, layers, doctor. `vtcav_ray.cli` adds them to `vtcav`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from vtcav_ray.cli.options import ConfigPath, OutUrl, Overrides, StorageFile, TrustCode
from vtcav_ray.errors import ConfigError


def register(app: typer.Typer, out: Console) -> None:
    """Add the commands to `app`."""
    for add in (_add_init, _add_world, _add_layers, _add_doctor):
        add(app, out)


def _add_init(app: typer.Typer, out: Console) -> None:
    @app.command()
    def init(
        file: Annotated[str, typer.Argument(metavar="[FILE]", help="to write")] = "vtcav.yaml",
        videos: Annotated[
            str | None, typer.Option(help="folder, glob or manifest, any fsspec URL; a few are opened")
        ] = None,
        weights: Annotated[str, typer.Option(help="YOLO weights")] = "yolov8n.pt",
        concepts: Annotated[
            str | None,
            typer.Option(help="folder with a folder of clips or images for each concept; then no detector is needed"),
        ] = None,
        model: Annotated[
            str, typer.Option(help="MMAction2 config: a file, a URL, or a packaged name")
        ] = "recognition/swin/swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb",
        checkpoint: Annotated[str, typer.Option(help="a .pth on any URL, or `untrained`")] = "untrained",
        out_url: OutUrl = None,
        force: Annotated[bool, typer.Option("--force", help="overwrite an existing file")] = False,
    ) -> None:
        """Write a commented config for your own model and videos. With --videos, it fits these."""
        from vtcav_ray.cli.init import Wanted, write_and_print

        write_and_print(Wanted(file, videos, weights, model, checkpoint, out_url, force, concepts), out)


def _add_world(app: typer.Typer, out: Console) -> None:
    @app.command()
    def world(
        folder: Annotated[str, typer.Argument(metavar="OUT", help="folder to render into, any fsspec URL")],
        videos: Annotated[int, typer.Option(min=8, help="number of videos")] = 400,
        seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same bytes")] = 0,
        concepts: Annotated[
            bool, typer.Option("--concepts", help="also render clips and images into folders of concepts")
        ] = False,
    ) -> None:
        """Render the planted world: small videos of moving objects, with labels and ground truth."""
        from vtcav_ray.store.urls import WRITTEN, check_url
        from vtcav_ray.world import write_world

        try:
            summary = write_world(check_url(folder, "OUT", WRITTEN), videos=videos, seed=seed)
        except (FileExistsError, NotADirectoryError) as error:
            message = f"No world was rendered: {error}. Give another folder, or delete that one first."
            raise ConfigError(message) from error
        labels = ", ".join(f"{label} {count}" for label, count in summary.labels.items())
        how = "already exist" if summary.reused else "rendered"
        out.print(f"{summary.videos} videos {how} ({labels}): {summary.uri}", soft_wrap=True, highlight=False)
        out.print("Labels are in videos.parquet, the truth (objects, boxes, motions) in truth.parquet beside it.")
        if concepts:
            from vtcav_ray.world.concepts import write_concepts

            place = f"{folder.rstrip('/')}/concepts"
            files = ", ".join(f"{name} {count}" for name, count in write_concepts(place, seed=seed).items())
            out.print(f"Concept folders ({files}): {place}", soft_wrap=True, highlight=False)


def _add_layers(app: typer.Typer, out: Console) -> None:
    @app.command()
    def layers(
        config: ConfigPath,
        overrides: Overrides = None,
        names: Annotated[
            list[str] | None, typer.Option("--layer", help="only this layer (alias or path); repeatable")
        ] = None,
        depth: Annotated[int, typer.Option(min=1, help="maximum number of parts in a module's path")] = 3,
        as_json: Annotated[bool, typer.Option("--json", help="print one JSON object, for programs")] = False,
        trust_code: TrustCode = False,
    ) -> None:
        """List the recogniser's layers: aliases, shapes, cost, and the layers where a sign count is meaningless."""
        from vtcav_ray.config.loading import load_config

        settings = load_config(
            config, overrides or (), trust_code=trust_code
        )  # before the slow imports, to report a typo at once

        from vtcav_ray.cli.layers import print_layers

        print_layers(settings, names, depth, out=None if as_json else out)


def _add_doctor(app: typer.Typer, out: Console) -> None:
    @app.command()
    def doctor(
        url: Annotated[
            str | None, typer.Option("--url", help="also check that this bucket or folder can be listed")
        ] = None,
        options: StorageFile = None,
    ) -> None:
        """Check this machine: versions, devices, parts known to break, packaged models, storage."""
        from vtcav_ray.cli.doctor import examine
        from vtcav_ray.config.loading import read_options

        findings = examine(url, read_options(options))
        for finding in findings:
            out.print(finding.line, highlight=False, soft_wrap=True)
        if any(finding.broken for finding in findings):
            raise typer.Exit(3)

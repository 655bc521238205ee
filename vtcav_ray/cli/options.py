"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

ConfigPath = Annotated[str, typer.Argument(help="YAML config, or asset:quickstart.yaml, which the package has")]
OutUrl = Annotated[str | None, typer.Option("--out", help="run folder, any fsspec URL")]
RunUrl = Annotated[str, typer.Argument(metavar="RUN", help="run folder, any fsspec URL")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="key=value, for example resources.num_cpus=8")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object, for scripts")]
# A file, because every process of a machine can see a command line.
StorageFile = Annotated[
    str | None,
    typer.Option(
        "--storage-options", metavar="FILE", help="YAML or JSON: fsspec's options for the run folder's storage"
    ),
]
TakeOver = Annotated[
    bool, typer.Option("--take-over", help="end another command that writes into the run folder, and resume from there")
]
NoVerify = Annotated[
    bool,
    typer.Option("--no-verify", help="do not check stored files against their digests, nor recompute broken ones"),
]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="allow programs to run: a .py model config or a TensorRT engine, from a URL or named by a run's run.json",
    ),
]

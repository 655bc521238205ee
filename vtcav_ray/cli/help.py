"""The help of `vtcav`: commands in groups, and for each an example and its page in the documentation."""

from __future__ import annotations

from collections.abc import Sequence

import typer
from typer.models import CommandInfo, DefaultPlaceholder

PAGES = "docs/"  # of the repository, and of the site that is made from it

# Group -> command -> (example, page). The groups and commands are shown in this order.
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Start": {
        "demo": ("vtcav demo", "guide.md"),
        "init": ("vtcav init mine.yaml --videos s3://bucket/videos", "guide.md"),
        "run": ("vtcav run mine.yaml --dry-run", "guide.md"),
        "plan": ("vtcav plan mine.yaml --rate gpu=2.50", "guide.md"),
        "open": ("vtcav open runs/mine", "report.md"),
        "doctor": ("vtcav doctor --url s3://bucket", "guide.md"),
    },
    "Read a run": {
        "status": ("vtcav status runs/mine", "engine.md"),
        "table": ("vtcav table runs/mine scores --where layer=late --sort -effect --limit 10", "tables.md"),
        "explain": ("vtcav explain runs/mine clip.mp4", "explain.md"),
        "compare": ("vtcav compare runs/a runs/b --html compare.html", "reruns.md"),
        "export": ("vtcav export runs/mine --to paper", "report.md"),
        "verify": ("vtcav verify runs/mine", "engine.md"),
    },
    "Check and extend a run": {
        "review": ("vtcav review runs/mine", "concepts.md"),
        "layers": ("vtcav layers mine.yaml", "models.md"),
        "patch": ("vtcav patch runs/mine --class lift", "statistics.md"),
        "intervene": ("vtcav intervene runs/mine --class lift", "statistics.md"),
        "maps": ("vtcav maps runs/mine", "maps.md"),
        "faithful": ("vtcav faithful runs/mine", "faithful.md"),
        "gradcam": ("vtcav gradcam mine.yaml", "gradcam.md"),
    },
    "Run again": {
        "retry-failed": ("vtcav retry-failed runs/mine", "reruns.md"),
        "rerun": ("vtcav rerun runs/mine --checkpoint epoch_2.pth", "reruns.md"),
        "watch": ("vtcav watch mine.yaml --checkpoints 's3://bucket/exp/*.pth'", "reruns.md"),
    },
    "Planted world": {"world": ("vtcav world planted --videos 400", "planted_answer.md")},
}
EXAMPLES = (
    "vtcav demo                                # the planted world: no videos and no GPU needed",
    "vtcav init mine.yaml --videos my/videos   # a commented config; then: vtcav run mine.yaml",
    "vtcav table runs/mine scores --sort -effect --limit 10",
)


def examples_text(lines: Sequence[str] = EXAMPLES) -> str:
    """Return the examples below the list of commands; an empty line keeps each on its own line."""
    return "\n\n".join(["Examples:", *lines])


def grouped(app: typer.Typer) -> None:
    """Give every command of `app` its group, its example and its page, and put the commands in order."""
    places = {name: (group, *about) for group, commands in GROUPS.items() for name, about in commands.items()}
    order = list(places)
    for command in app.registered_commands:
        group, example, page = places[name_of(command)]
        command.rich_help_panel = group
        if isinstance(command.epilog, DefaultPlaceholder) or not command.epilog:
            command.epilog = examples_text([example, f"More: {PAGES}{page}"]).replace("Examples:", "Example:")
    app.registered_commands.sort(key=lambda command: order.index(name_of(command)))


def name_of(command: CommandInfo) -> str:
    """Return the name by which a command is called."""
    assert command.callback is not None
    return command.name or command.callback.__name__.replace("_", "-")

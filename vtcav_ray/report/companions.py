"""Pages that lie beside the report and show its figures: the report links to them, and a new report rewrites them.

The room of an optional stage (`vtcav_ray.stages.BRANCHES`) registers its page in its `__init__`:

    COMPANIONS["gradcam"] = Companion("gradcam.html", "Grad-CAM", rewrite)

The report imports no such room. A room is loaded by its stage's name when a run folder has that stage, so every caller
of the pipeline keeps the page up to date, and a run without the stage pays for no import.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vtcav_ray.stages import BRANCHES

if TYPE_CHECKING:
    from vtcav_ray.runs.run import Run


@dataclass(frozen=True)
class Companion:
    """A page beside the report.

    Attributes:
        page: file name in the run folder.
        title: the link's words in the report's bar.
        rewrite: writes the page of a run again, with the figures of its newest report.
    """

    page: str
    title: str
    rewrite: Callable[[Run], None]


COMPANIONS: dict[str, Companion] = {}  # stage -> its page


def companions(run: Run) -> Iterator[tuple[str, Companion]]:
    """Yield (stage, companion) for each optional stage that the run's newest output belongs to."""
    for stage in dict.fromkeys([*(branch.name for branch in BRANCHES), *COMPANIONS]):
        if stage not in run.keys:
            continue
        if stage not in COMPANIONS:
            importlib.import_module(f"vtcav_ray.{stage}")
        if stage in COMPANIONS:
            yield stage, COMPANIONS[stage]

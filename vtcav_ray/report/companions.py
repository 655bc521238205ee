"""Pages beside the report that show its figures. The report links to them, and a new report rewrites them.

The room of an optional stage (`vtcav_ray.stages.BRANCHES`) registers its page in its `__init__`:

    COMPANIONS["gradcam"] = Companion("gradcam.html", "Grad-CAM", rewrite)

The report does not import these rooms. `companions` imports a room by its stage's name when a run has that stage. So
every caller of the pipeline keeps the page up to date, and a run without the stage imports nothing.
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
        title: text of the link in the report's bar.
        rewrite: rewrites a run's page with the figures of its newest report.
    """

    page: str
    title: str
    rewrite: Callable[[Run], None]


COMPANIONS: dict[str, Companion] = {}  # stage -> its page


def companions(run: Run) -> Iterator[tuple[str, Companion]]:
    """Yield (stage, companion) for each optional stage of the folder's newest run."""
    for stage in dict.fromkeys([*(branch.name for branch in BRANCHES), *COMPANIONS]):
        if stage not in run.keys:
            continue
        if stage not in COMPANIONS:
            importlib.import_module(f"vtcav_ray.{stage}")
        if stage in COMPANIONS:
            yield stage, COMPANIONS[stage]

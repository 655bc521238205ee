"""The stages of a run in order: the tables that each writes, its resources, and whether reruns share it.

This is the one list of facts about stages. Each room's `stage.py` adds the computation: the key's ingredients and the
work (`vtcav_ray.runs.stage.Stage`). This module does not import Arrow, so that `vtcav --help` starts fast.
`vtcav_ray.tables` has the columns of each table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageFacts:
    """The facts that other modules need about a stage.

    Attributes:
        name: also the name of its folder, `RUN/<name>/<key>/`.
        inputs: stages whose tables it reads; their keys are part of its key.
        tables: tables that it writes for users, besides `failures`.
        side_tables: tables that only later stages and pages read.
        resources: section of the config's `resources` that describes its actors; None: it runs in the driver.
        unit: metric that counts its progress, such as `clips`; None: it has none.
        shared: a rerun on another checkpoint uses the output of the run that it is a rerun of.
        retried: `vtcav retry-failed` retries its failures, since it works on videos or clips one by one.
        command: command that runs it on the folder RUN, for a stage that not every `vtcav run` runs.
    """

    name: str
    inputs: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    side_tables: tuple[str, ...] = ()
    resources: str | None = None
    unit: str | None = None
    shared: bool = False
    retried: bool = False
    command: str | None = None

    @property
    def items(self) -> str:
        """What its progress counts, in a reader's words; empty: it has no unit."""
        return {"cells": "comparisons", "cavs": "CAVs"}.get(self.unit or "", self.unit or "")


VIDEOS = StageFacts("videos", tables=("videos",), side_tables=("given",), shared=True)
TRACKS = StageFacts(
    "tracks",
    inputs=("videos",),
    tables=("tracks",),
    side_tables=("signatures", "times", "masks", "segments"),
    resources="detect",
    unit="videos",
    shared=True,
    retried=True,
)
CLIPS = StageFacts(
    "clips",
    inputs=("videos", "tracks"),
    tables=("clips",),
    side_tables=("looks", "contents", "duplicates", "copies", "clip_signatures"),
    resources="cut",
    unit="clips",
    shared=True,
    retried=True,
)
ACTIVATIONS = StageFacts(
    "activations",
    inputs=("clips",),
    tables=("activations", "gradients", "answers"),
    resources="extract",
    unit="clips",
    retried=True,
)
CAVS = StageFacts(
    "cavs",
    inputs=("clips", "activations"),
    tables=("cavs", "curves", "entanglement"),
    side_tables=("left_out", "chance"),
    resources="statistics",
    unit="cavs",
)
RESPONSES = StageFacts(
    "responses",
    inputs=("clips", "activations"),
    tables=("responses",),
    resources="extract",
    unit="clips",
    command="vtcav run CONFIG --set scores.effect=patch --out RUN",
)
SCORES = StageFacts(
    "scores",
    inputs=("clips", "activations", "cavs"),
    tables=("scores", "sensitivities", "nulls", "composition"),
    side_tables=("cells", "score_nulls", "effect_tests"),
    resources="statistics",
    unit="cells",
)
REPORT = StageFacts(
    "report",
    inputs=("videos", "tracks", "clips", "activations", "cavs", "scores"),
    tables=("verdicts", "mistakes"),
)
GRADCAM = StageFacts(
    "gradcam",
    inputs=("tracks", "clips"),
    tables=("gradcam", "gradcam_summary", "gradcam_places", "gradcam_places_summary"),
    side_tables=("overlays", "aligned", "aggregate"),
    resources="extract",
    unit="clips",
    command="vtcav gradcam CONFIG --out RUN",
)
PATCH = StageFacts(
    "patch",
    inputs=("clips", "activations", "cavs", "scores"),
    tables=("patched", "patch_effects"),
    resources="extract",
    unit="clips",
    command="vtcav patch RUN",
)
MAPS = StageFacts(
    "maps",
    inputs=("tracks", "clips", "activations", "cavs", "scores"),
    tables=("maps", "maps_summary"),
    side_tables=("map_overlays",),
    resources="extract",
    unit="clips",
    command="vtcav maps RUN",
)
FAITHFUL = StageFacts(
    "faithful",
    inputs=("clips", "activations", "cavs", "scores"),
    tables=("faithfulness",),
    side_tables=("erasures", "finite_changes", "randomised", "halves"),
    resources="extract",
    unit="clips",
    command="vtcav faithful RUN",
)

ANSWER = "answer"  # in the column `layer` of `scores`: no layer, but the model's own answer
STAGES = (VIDEOS, TRACKS, CLIPS, ACTIVATIONS, CAVS, SCORES, REPORT)
# With the stage that only some configs ask for.
IN_ORDER = (VIDEOS, TRACKS, CLIPS, ACTIVATIONS, CAVS, RESPONSES, SCORES, REPORT)
BRANCHES = (
    GRADCAM,
    PATCH,
    MAPS,
    FAITHFUL,
)  # `RUN/<stage>.json` has the key of each, and the keys of the stages that it read
ALL_STAGES = (*IN_ORDER, *BRANCHES)
NAMES = tuple(stage.name for stage in STAGES)
ALL_NAMES = tuple(stage.name for stage in ALL_STAGES)
SHARED = tuple(stage.name for stage in STAGES if stage.shared)
# Table -> the stage that writes it. Every stage writes `failures`; `vtcav intervene` writes `interventions`.
STAGE_OF_TABLE = {table: stage.name for stage in ALL_STAGES for table in stage.tables}
PRINTED = ("duplicates", "copies")  # side tables that a user reads, too
STAGE_OF_TABLE |= {table: stage.name for stage in ALL_STAGES for table in stage.side_tables if table in PRINTED}
TABLES = (*(table for stage in STAGES for table in stage.tables), "failures")
ALL_TABLES = (
    *TABLES,
    *PRINTED,
    *(table for stage in (RESPONSES, *BRANCHES) for table in stage.tables),
    "interventions",
)


def facts_of(name: str) -> StageFacts:
    """Return the facts about a stage; of a stage that is not in the list, only its name."""
    return next((stage for stage in ALL_STAGES if stage.name == name), StageFacts(name))

"""The sections of the report, and what each shows as plain values. The markup is in `templates/`.

A section is a class in the registry `REPORT_SECTIONS`; docs/extending.md adds one.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import yaml
from markupsafe import Markup

from vtcav_ray.pages import render
from vtcav_ray.pages.wording import duration, rate, size
from vtcav_ray.registry import REPORT_SECTIONS
from vtcav_ray.report import mistakes, sentences
from vtcav_ray.report.data import ReportData, StageSummary
from vtcav_ray.report.depths import Depths, depths
from vtcav_ray.report.examples import Driven
from vtcav_ray.report.phrases import Sentence
from vtcav_ray.report.score_cells import ScoreCells
from vtcav_ray.report.searched import Searched, searched
from vtcav_ray.report.undecided import undecided
from vtcav_ray.report.verdicts import Verdict, clearest, for_all_classes, verdicts
from vtcav_ray.runs.costs import Hours, price, stage_hours
from vtcav_ray.stages import TABLES as NAMES

MAX_ANSWERS = 12
MAX_FAILURES = 500
FAILURE_COLUMNS = ("stage", "error_kind", "uri", "video_id", "clip_id", "message", "attempts")


class Section:
    """A section of the report's page. Its name in the registry is the `id` that the bar at the top links to.

    Attributes:
        title: the word in the bar.
        heading: the heading above it.
        template: file in the folder `templates` of `room`, rendered with `id`, `heading` and `values`.
        room: the package that has the template.
    """

    title: ClassVar[str]
    heading: ClassVar[str] = ""
    template: ClassVar[str] = ""
    room: ClassVar[str] = "vtcav_ray.report"

    def shown(self, data: ReportData) -> bool:
        """Return whether the report has this section."""
        return True

    def values(self, data: ReportData, cells: ScoreCells) -> Mapping[str, Any]:
        """Return the values that the template needs."""
        return {}

    def html(self, id: str, data: ReportData, cells: ScoreCells) -> Markup:
        """Return the section's markup: one element `section` with this id. Text must be escaped, as templates do."""
        values = self.values(data, cells)
        # A template escapes what it shows, so its text is markup.
        return Markup(render(self.room, self.template, id=id, heading=self.heading or self.title, **values))


@dataclass(frozen=True)
class Placed:
    """A section on the page: its id, the word in the bar, and its markup."""

    id: str
    title: str
    html: Markup


def sections(data: ReportData, cells: ScoreCells) -> list[Placed]:
    """Return every section of a report: the built-in ones in their order, with the added ones before the run."""
    names = sorted(REPORT_SECTIONS, key=lambda name: name == "run")
    found: list[tuple[str, Section]] = [(name, REPORT_SECTIONS[name]()) for name in names]
    return [
        Placed(name, section.title, section.html(name, data, cells)) for name, section in found if section.shown(data)
    ]


@dataclass(frozen=True)
class GroupShare:
    """Significant comparisons of one group of concepts."""

    words: str
    significant: int
    total: int


@dataclass(frozen=True)
class Answer:
    """One class: its verdict, its findings by depth, the figures behind it in sentences, and two of its examples.

    `addresses`: video of an example -> address of its explanation.
    """

    verdict: Verdict
    depths: Depths
    figures: Sequence[Sentence]
    driven: Driven | None
    addresses: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """The summary.

    Attributes:
        eyebrow: the models, and when the run was last written to.
        lead: what all classes share, and how much was tested and found.
        shares: significant comparisons by group of concept.
        tiles: (figure, what it counts).
        answers: the classes with the clearest findings, in full.
        more: the other classes' verdicts.
        undecided: questions that could not be decided, and why.
        warnings: for the user.
        note: which class examples have no preview; empty: all have one.
    """

    eyebrow: Sequence[str]
    lead: Sequence[Sentence]
    shares: Sequence[GroupShare]
    tiles: Sequence[tuple[str, str]]
    answers: Sequence[Answer]
    more: Sequence[Verdict]
    undecided: Sequence[Sentence]
    warnings: Sequence[str]
    note: str


@dataclass(frozen=True)
class StageRow:
    """A line of the table of stages.

    Attributes:
        facts: facts about the stage.
        tables: its tables -> rows.
        share: its share of the time of all stages, percent.
        made: rows of the table with the stage's name, for the throughput.
        ingredients: the ingredients of its key, as YAML; empty: not recorded.
    """

    facts: StageSummary
    tables: Mapping[str, int]
    share: float
    made: int
    ingredients: str


@dataclass(frozen=True)
class Failures:
    """Inputs that failed: their number, the number of each kind, and the first rows (`FAILURE_COLUMNS`) as text."""

    total: int
    kinds: Sequence[tuple[str, int]]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class RunSection:
    """The run itself: name -> value for its facts and versions, its stages, its failures, and its config as YAML."""

    facts: Mapping[str, str]
    stages: Sequence[StageRow]
    failures: Failures
    config: str
    versions: Mapping[str, str]
    searched: Searched | None = None


@REPORT_SECTIONS.register("summary")
class SummarySection(Section):
    """The results in sentences and figures."""

    title = "Summary"
    template = "summary.html"

    def values(self, data: ReportData, cells: ScoreCells) -> Mapping[str, Any]:
        return {"summary": summary(data, cells)}


class _Drawn(Section):
    """A section that the page's scripts draw."""

    template = "drawn.html"


@REPORT_SECTIONS.register("matrix")
class MatrixSection(_Drawn):
    """Every comparison, classes by concepts."""

    title, heading = "Matrix", "Classes × concepts"


@REPORT_SECTIONS.register("class")
class ClassSection(_Drawn):
    """One class at a time."""

    title, heading = "Classes", "Class by class"


@REPORT_SECTIONS.register("concepts")
class ConceptsSection(_Drawn):
    """The concepts: their clips, accuracies and how alike they are."""

    title = "Concepts"


@REPORT_SECTIONS.register("mistakes")
class MistakesSection(Section):
    """Which concepts push misclassified examples to the wrong class."""

    title, heading = "Mistakes", "Mistakes of the model"
    template = "mistakes.html"

    def values(self, data: ReportData, cells: ScoreCells) -> Mapping[str, Any]:
        rows = [] if data.mistakes is None else data.mistakes.to_pylist()
        wrong, more = mistakes.mistaken(data.explained)
        return {
            "sentences": mistakes.sentences(data.mistakes, data.alpha),
            "rows": rows[: mistakes.MAX_ROWS],
            "more": max(0, len(rows) - mistakes.MAX_ROWS),
            "examples": wrong,
            "more_examples": more,
        }


@REPORT_SECTIONS.register("run")
class RunPart(Section):
    """The run itself: stages, failures, config and versions."""

    title = "The run"
    template = "run.html"

    def values(self, data: ReportData, cells: ScoreCells) -> Mapping[str, Any]:
        heads = [column.replace("_", " ") for column in FAILURE_COLUMNS]
        return {"run": run_section(data), "failure_heads": heads}


def summary(data: ReportData, cells: ScoreCells) -> Summary:
    """Collect what the summary shows."""
    every = verdicts(cells, data.movements)
    full = clearest(every, MAX_ANSWERS)
    driven = data.examples.driven
    addresses: dict[str, dict[str, str]] = {}
    for example in data.explained.examples if data.explained is not None else ():
        video = example.explanation.video
        addresses.setdefault(example.name, {})[video] = mistakes.example_address(example.name, video)
    figures = {found.name: found.sentences for found in sentences.findings(cells, [one.name for one in full])}
    return Summary(
        eyebrow=_eyebrow(data),
        lead=[
            *for_all_classes(cells),
            *sentences.overall(
                cells, alpha=data.alpha, correction=data.correction, min_effect=data.min_effect, effect=data.effect
            ),
        ],
        shares=[GroupShare(*share) for share in sentences.group_shares(cells)],
        tiles=_tiles(data, cells),
        answers=[
            Answer(one, depths(cells, one), figures[one.name], driven.get(one.name), addresses.get(one.name, {}))
            for one in full
        ],
        more=[one for one in every if one not in full],
        undecided=undecided(cells, alpha=data.alpha),
        warnings=data.warnings,
        note=data.examples.note,
    )


def run_section(data: ReportData) -> RunSection:
    """Collect what the section on the run shows."""
    return RunSection(
        facts=_facts(data),
        stages=_stage_rows(data.stages),
        failures=_failures(data),
        config=_as_yaml(data.config, width=100),
        versions=data.versions,
        searched=searched(data.enough) if data.enough is not None else None,
    )


def _eyebrow(data: ReportData) -> list[str]:
    found = list(data.models)
    if data.updated is not None:
        when = datetime.datetime.fromtimestamp(data.updated, datetime.UTC)
        found.append(when.strftime("%d %B %Y, %H:%M UTC"))
    return [text for text in found if text]


def _tiles(data: ReportData, cells: ScoreCells) -> list[tuple[str, str]]:
    tested = int(np.isfinite(cells.numbers["p"]).sum()) if len(cells) else 0
    correction = {"step_down": "step-down", "holm": "Holm", "bh": "Benjamini–Hochberg", "none": "uncorrected"}
    return [
        (f"{int(cells.significant_N.sum()):,}", "significant comparisons"),
        (f"{tested:,}", "comparisons tested (m)"),
        (f"{data.alpha:g}", f"α, {correction.get(data.correction, data.correction)}"),
        ("–" if data.random_sets is None else f"{data.random_sets:,}", "random sets (R)"),
        (f"{len(cells.classes):,}", "classes"),
        (f"{len({c.concept for c in cells.columns}):,}", "concepts"),
        (f"{len(cells.layers):,}", "layers"),
        (f"{data.failures.num_rows:,}", "failures"),
    ]


def _facts(data: ReportData) -> dict[str, str]:
    seconds = [s.seconds for s in data.stages if s.seconds is not None]
    pairs = {
        "run folder": data.url,
        "model": ", ".join(data.models),
        "time, all stages": duration(sum(seconds)) if seconds else "–",
        "stored": size(sum(s.bytes for s in data.stages)),
    }
    return {name: value for name, value in {**pairs, **_throughput(data), **_cost(data)}.items() if value}


def _throughput(data: ReportData) -> dict[str, str]:
    """Return videos and clips per second: over the stages that process each, and over the whole run."""
    rows = {name: n for s in data.stages for name, n in s.rows.items()}
    took = {s.name: s.seconds or 0.0 for s in data.stages}
    videos, clips = rows.get("videos", 0), rows.get("clips", 0)
    return {
        "videos per second, tracked": rate(videos, took.get("tracks")),
        "clips per second, through the model": rate(clips, took.get("activations")),
        "videos per second, all stages": rate(videos, sum(took.values())),
    }


def _cost(data: ReportData) -> dict[str, str]:
    if not any(s.worker_seconds for s in data.stages):
        return {}
    resources = data.config.get("resources", {})
    hours = sum((stage_hours(s.name, s.worker_seconds, resources) for s in data.stages), Hours())
    rates = resources.get("rates", {})
    found = price(hours, rates)
    return {
        "CPU hours held": f"{hours.cpu:.3g}",
        "GPU hours held": f"{hours.gpu:.3g}",
        "cost": "no rate given (resources.rates)" if found is None else f"{found:,.2f} {rates.get('currency', 'EUR')}",
    }


def _stage_rows(stages: Sequence[StageSummary]) -> list[StageRow]:
    all_seconds = sum(stage.seconds or 0.0 for stage in stages)
    return [
        StageRow(
            facts=stage,
            tables={name: n for name, n in stage.rows.items() if name in NAMES},
            share=100 * (stage.seconds or 0.0) / all_seconds if all_seconds else 0.0,
            made=stage.rows.get(stage.name, 0),
            ingredients=_as_yaml(stage.ingredients, width=80) if stage.ingredients else "",
        )
        for stage in stages
    ]


def _failures(data: ReportData) -> Failures:
    counts: dict[str, int] = {}
    for kind in data.failures["error_kind"].to_pylist():
        counts[str(kind)] = counts.get(str(kind), 0) + 1
    return Failures(
        total=data.failures.num_rows,
        kinds=sorted(counts.items(), key=lambda item: -item[1]),
        rows=[
            ["" if row[column] is None else str(row[column]) for column in FAILURE_COLUMNS]
            for row in data.failures.slice(0, MAX_FAILURES).to_pylist()
        ],
    )


def _as_yaml(value: Mapping[str, Any], *, width: int) -> str:
    return yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True, width=width)

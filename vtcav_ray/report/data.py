"""The input of a report: plain values, so a page can be built and tested without a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray import tables
from vtcav_ray.clips.usable import AcceptedRows, read_left_out
from vtcav_ray.report.companions import companions
from vtcav_ray.report.examples import Driven, Examples, find_driven, read_examples
from vtcav_ray.report.previews import Preview, previews_of_concepts, read_heads
from vtcav_ray.report.score_cells import read_cells
from vtcav_ray.report.verdicts import verdicts
from vtcav_ray.runs.run import Run
from vtcav_ray.stages import ALL_NAMES, FAITHFUL

if TYPE_CHECKING:
    from vtcav_ray.why.examples import ExplainedExamples

ACCURACY_COLUMNS = ("layer", "concept", "negatives", "is_null", "held_out_accuracy")
CLIP_COLUMNS = ("set", "name", "kind", "video_id", "label", "object")
MAX_PARTS = 8  # labels, objects or source videos of a concept that are named
SENSITIVITY_COLUMNS = ("class", "layer", "concept", "video_id", "sensitivity")


@dataclass(frozen=True)
class StageSummary:
    """Facts from the manifest of one complete stage.

    Attributes:
        name: stage name.
        key: key of the stage's folder.
        seconds: wall time of the run that made it; None: not recorded.
        rows: table -> number of rows.
        bytes: total size of its files.
        metrics: numbers summed over shards.
        warnings: sentences for the user.
        ingredients: the values that determine the key.
    """

    name: str
    key: str
    seconds: float | None = None
    rows: Mapping[str, int] = field(default_factory=dict)
    bytes: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    ingredients: Mapping[str, Any] = field(default_factory=dict)

    @property
    def worker_seconds(self) -> float:
        """Seconds summed over the stage's actors, or the wall time of a stage that runs in the driver."""
        return float(self.metrics.get("seconds", self.seconds or 0.0))


@dataclass(frozen=True)
class ConceptFacts:
    """The clips of one concept `<name>/<kind>`.

    Attributes:
        clips: their number.
        videos: number of their source videos.
        previews: of a few clips.
        parts: `label`, `object` and `source video` -> (value, number of clips), most frequent first.
    """

    clips: int = 0
    videos: int = 0
    previews: Sequence[Preview] = ()
    parts: Mapping[str, Sequence[tuple[str, int]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Entanglement:
    """The similarity of the directions of one layer's concepts.

    Attributes:
        layer: layer name.
        concepts: K names `<name>/<kind>`, sorted.
        cosine: float32 [K, K] between the means of each concept's CAVs against random sets; NaN: not in the table.
    """

    layer: str
    concepts: Sequence[str]
    cosine: np.ndarray


@dataclass(frozen=True)
class ReportData:
    """Everything that a report shows.

    Attributes:
        title: the run's name.
        scores: rows of `tables.SCORES`; further columns are shown under their own names.
        concepts: `<name>/<kind>` -> its clips.
        class_clips: class -> number of example clips.
        examples: previews of class examples, and which are driven most and least.
        accuracies: `ACCURACY_COLUMNS` of the cavs table; None: the distributions are left out.
        entanglement: how similar the concepts' directions are, one entry per layer.
        sensitivities: class, layer, concept, video_id, sensitivity: how each class video's logit changes along the CAVs
            against random clips; None: left out.
        nulls: rows of `tables.NULLS`; None: left out.
        composition: rows of `tables.COMPOSITION`; None: left out.
        failures: rows of `tables.FAILURES`.
        mistakes: rows of `tables.MISTAKES`; None: left out.
        explained: the class examples one by one; None: left out.
        faithfulness: rows of `tables.FAITHFULNESS`; None: the run has no checks.
        stages: in the pipeline's order; a stage that is not complete is left out.
        config: as in run.json.
        versions: package -> version.
        warnings: sentences for the user about the whole run.
        url: URL of the run folder.
        updated: time of the last write to the run, in seconds since 1970; None: not known.
        enough: how many videos of how many were looked at, by set (`enough` in run.json); None: all of them.
        links: (address, text) of the pages beside the report.
    """

    title: str
    scores: pa.Table
    concepts: Mapping[str, ConceptFacts] = field(default_factory=dict)
    class_clips: Mapping[str, int] = field(default_factory=dict)
    examples: Examples = field(default_factory=Examples)
    accuracies: pa.Table | None = None
    entanglement: Sequence[Entanglement] = ()
    sensitivities: pa.Table | None = None
    nulls: pa.Table | None = None
    composition: pa.Table | None = None
    failures: pa.Table = field(default_factory=tables.FAILURES.empty_table)
    mistakes: pa.Table | None = None
    explained: ExplainedExamples | None = None
    faithfulness: pa.Table | None = None
    stages: Sequence[StageSummary] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    url: str = ""
    updated: float | None = None
    enough: Mapping[str, Any] | None = None
    links: Sequence[tuple[str, str]] = ()

    @property
    def layers(self) -> list[str]:
        """Layers that have scores: first in the config's order, then the others in table order."""
        found = list(dict.fromkeys(self.scores["layer"].to_pylist()))
        wanted = self.config.get("activations", {}).get("layers", ())
        return [x for x in wanted if x in found] + [x for x in found if x not in wanted]

    @property
    def models(self) -> list[str]:
        """Distinct values of the `model` column, sorted. A whole run has one."""
        return sorted({str(m) for m in self.scores["model"].unique().to_pylist() if m is not None})

    @property
    def untrained(self) -> bool:
        return any(m.startswith("UNTRAINED") for m in self.models)

    @property
    def movements(self) -> frozenset[str]:
        """Names of the concepts that the config defines by a motion."""
        concepts = self.config.get("clips", {}).get("concepts", ())
        return frozenset(one["name"] for one in concepts if isinstance(one, Mapping) and one.get("motion"))

    @property
    def alpha(self) -> float:
        return float(self.config.get("scores", {}).get("alpha", 0.05))

    @property
    def effect(self) -> str:
        """`first_order` or `patch`."""
        return str(self.config.get("scores", {}).get("effect", "first_order"))

    @property
    def min_effect(self) -> float:
        """Smallest effect of interest, a share of the class's margin; 0: none."""
        return float(self.config.get("scores", {}).get("min_effect", 0.0))

    @property
    def correction(self) -> str:
        return str(self.config.get("scores", {}).get("correction", "holm"))

    @property
    def random_sets(self) -> int | None:
        """R from the config, or else from the scores."""
        wanted = self.config.get("cavs", {}).get("random_sets")
        if wanted is not None:
            return int(wanted)
        found = [r for r in self.scores["R"].to_pylist() if r is not None]
        return max(found) if found else None

    @classmethod
    def from_run(cls, run: Run) -> ReportData:
        """Read what a report needs: the scores, the clips' metadata, a few clips, and the CAVs shard by shard.

        Raises:
            ConfigError: the run has not reached its scores.
        """
        record = run.record
        reached = [name for name in ALL_NAMES if name in run.keys]
        stages = [_stage_facts(run.manifest(name)) for name in reached if run.stage(name).complete]
        accepted = AcceptedRows.of(run.stage("clips"), read_left_out(run.stage("cavs")))
        clips = accepted.read("clips", columns=CLIP_COLUMNS)
        if clips is None:
            clips = tables.CLIPS.empty_table()
        heads = read_heads(accepted)
        data = cls(
            title=run.config.name,
            scores=_with_patch_effects(run),
            concepts=_concept_facts(clips, previews_of_concepts(accepted, heads)),
            class_clips=_class_counts(clips),
            accuracies=run.table("cavs", columns=list(ACCURACY_COLUMNS)),
            entanglement=read_entanglement(run.stage("cavs").read("entanglement"), run.config.activations.layers),
            sensitivities=run.stage("scores").read("sensitivities", columns=SENSITIVITY_COLUMNS),
            nulls=run.stage("scores").read("nulls"),
            composition=run.stage("scores").read("composition"),
            failures=run.table("failures"),
            mistakes=_mistakes(run),
            faithfulness=_faithfulness(run),
            stages=stages,
            config=record["config"],
            versions=record.get("versions", {}),
            # Warnings of a reused stage are in its manifest, those of a running stage in the record. Show each once.
            warnings=list(dict.fromkeys([*record.get("warnings", ()), *(w for s in stages for w in s.warnings)])),
            url=run.url,
            updated=record.get("updated"),
            enough=record.get("enough"),
            links=[(one.page, one.title) for _, one in companions(run) if run.folder.exists(one.page)],
        )
        cells = read_cells(data.scores, data.layers)
        driven = find_driven(cells, verdicts(cells, data.movements), data.sensitivities)
        examples = read_examples(accepted, heads, driven)
        return replace(data, examples=examples, explained=_explained(run, driven))


def _mistakes(run: Run) -> pa.Table | None:
    """Return the table of mistakes; None: an older version made the activations, without the model's answers."""
    if "activations" not in run.keys or not run.stage("activations").files("answers"):
        return None
    from vtcav_ray.why.run_mistakes import mistakes_of_run

    return mistakes_of_run(run)


def _explained(run: Run, driven: Mapping[str, Driven]) -> ExplainedExamples | None:
    """Return the class examples one by one; None: an older version made the activations, without the answers."""
    if "activations" not in run.keys or not run.stage("activations").files("answers"):
        return None
    from vtcav_ray.why.examples import explain_examples

    return explain_examples(run, [video for one in driven.values() for video in (one.most, one.least)])


def _faithfulness(run: Run) -> pa.Table | None:
    done = FAITHFUL.name in run.keys and run.stage(FAITHFUL.name).complete
    return run.table("faithfulness") if done else None


def _with_patch_effects(run: Run) -> pa.Table:
    """Return the scores, with `effect_patch` and `q_patch` if the run has patch effects; null: not patched."""
    scores = run.table("scores")
    if "patch" not in run.keys or not run.stage("patch").complete:
        return scores
    found = run.table("patch_effects", columns=[*tables.CELL_KEY, "effect_patch", "q"])
    keys = zip(*(found[name].to_pylist() for name in tables.CELL_KEY), strict=True)
    values = zip(found["effect_patch"].to_pylist(), found["q"].to_pylist(), strict=True)
    of_cell = dict(zip(keys, values, strict=True))
    cells = zip(*(scores[name].to_pylist() for name in tables.CELL_KEY), strict=True)
    pairs = [of_cell.get(cell, (None, None)) for cell in cells]
    for i, name in enumerate(("effect_patch", "q_patch")):
        scores = scores.append_column(name, pa.array([pair[i] for pair in pairs], pa.float64()))
    return scores


def read_entanglement(table: pa.Table | None, layers: Sequence[str]) -> list[Entanglement]:
    """Return the table as one matrix per layer, in the order of `layers`. A layer without rows is left out.

    Args:
        table: rows of `tables.ENTANGLEMENT`; None: the run has no such table.
    """
    if table is None:
        return []
    parts = ((layer, table.filter(pc.equal(table["layer"], layer))) for layer in layers)
    return [_of_layer(layer, part) for layer, part in parts if part.num_rows]


def _of_layer(layer: str, part: pa.Table) -> Entanglement:
    names = [np.asarray(part[column].to_pylist()) for column in ("concept", "other")]
    concepts = np.unique(np.concatenate(names))
    cosine = np.full((len(concepts), len(concepts)), np.nan, np.float32)
    rows, columns = (np.searchsorted(concepts, one) for one in names)
    cosine[rows, columns] = part["cosine"].to_numpy()
    return Entanglement(layer, concepts.tolist(), cosine)


def _stage_facts(manifest: Mapping[str, Any]) -> StageSummary:
    return StageSummary(
        name=manifest["stage"],
        key=manifest["key"],
        seconds=manifest.get("seconds"),
        rows=manifest.get("rows", {}),
        bytes=manifest.get("bytes", 0),
        metrics=manifest.get("metrics", {}),
        warnings=manifest.get("warnings", ()),
        ingredients=manifest.get("ingredients", {}),
    )


def _concept_facts(clips: pa.Table, previews: Mapping[str, Sequence[Preview]]) -> dict[str, ConceptFacts]:
    columns = [clips[c].to_numpy(zero_copy_only=False) for c in CLIP_COLUMNS]
    parts: dict[str, dict[str, Counter[str]]] = {}
    for set_, name, kind, video, label, object_ in zip(*columns, strict=True):
        if set_ == "concept":
            of = parts.setdefault(f"{name}/{kind}", {key: Counter() for key in ("label", "object", "source video")})
            for counter, value in zip(of.values(), (label or "no label", object_ or "no object", video), strict=True):
                counter[value] += 1
    return {
        concept: ConceptFacts(
            clips=of["label"].total(),
            videos=len(of["source video"]),
            previews=tuple(previews.get(concept, ())),
            parts={key: _most_common(counter) for key, counter in of.items()},
        )
        for concept, of in sorted(parts.items())
    }


def _most_common(counter: Counter[str]) -> list[tuple[str, int]]:
    """Return the most frequent values, then all others together."""
    ordered = sorted(counter.items(), key=lambda pair: (-pair[1], pair[0]))
    rest = ordered[MAX_PARTS:]
    together = [(f"{len(rest):,} others", sum(n for _, n in rest))] if rest else []
    return [*ordered[:MAX_PARTS], *together]


def _class_counts(clips: pa.Table) -> dict[str, int]:
    names = clips["name"].to_numpy(zero_copy_only=False)[clips["set"].to_numpy(zero_copy_only=False) == "class"]
    found, counts = np.unique(names.astype(str), return_counts=True)
    return {str(name): int(count) for name, count in zip(found, counts, strict=True)}

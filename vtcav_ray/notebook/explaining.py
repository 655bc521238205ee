"""`vtcav_ray.explain`: from clips in memory to the result cells, with the functions that the stages of a run use."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import pyarrow as pa
from pydantic import ValidationError
from torch import nn

from vtcav_ray.activations.clip_tables import ClipExtractor, ClipTables, extractor_of
from vtcav_ray.activations.reference import reference_classes
from vtcav_ray.cavs.layer_cavs import LayerCavs, Plan
from vtcav_ray.cavs.stage import BLOCK_CAVS, BLOCK_CHANCE
from vtcav_ray.config.clips import ClipsConfig
from vtcav_ray.config.model import ActivationsConfig
from vtcav_ray.config.section import ConfigSection
from vtcav_ray.config.statistics import CavsConfig, ScoresConfig
from vtcav_ray.models.base import Recogniser
from vtcav_ray.models.families import ALIASES
from vtcav_ray.models.python_module import NetworkSpec
from vtcav_ray.notebook.clip_sets import Clips, ClipSets, Groups
from vtcav_ray.notebook.explanation import Explanation
from vtcav_ray.notebook.modules import left_unchanged, recogniser_of
from vtcav_ray.notebook.progress import Steps
from vtcav_ray.rows import NullRow, ScoreRow, table_of
from vtcav_ray.scores.answers import Answers, score_answers
from vtcav_ray.scores.class_names import classes_with_gradients
from vtcav_ray.scores.correction import corrected_tables
from vtcav_ray.scores.family_tests import FamilyTests
from vtcav_ray.scores.inputs import layer_clips, with_cavs
from vtcav_ray.scores.layer import score_layer
from vtcav_ray.scores.layer_data import LayerClips, LayerData, ScoreOptions
from vtcav_ray.text.name_lists import NameIndex


class Settings(TypedDict, total=False):
    """Settings of `explain`. Each has the meaning and the default that it has in a config (docs/guide.md)."""

    projection: str  # activations.projection
    target: Literal["logit", "log_odds", "log_probability"]
    views: Literal["center", "test"]
    precision: Literal["float32", "bfloat16", "float16"]
    reference: int | None  # activations.reference; None: ClipsConfig's per_class
    solver: str  # cavs.solver
    regularization: float | None
    held_out: float
    random_sets: int
    relative: Sequence[Literal["groups", "pairs"]]
    alpha: float  # scores.alpha
    correction: Literal["step_down", "holm", "bh", "none"]
    min_effect: float
    bootstrap: int
    permutations: int
    gradients_at: Literal["reference", "own"]


_SECTIONS: Mapping[type[ConfigSection], Sequence[str]] = {
    ActivationsConfig: ("projection", "target", "views", "precision", "reference"),
    CavsConfig: ("solver", "regularization", "held_out", "random_sets", "relative"),
    ScoresConfig: ("alpha", "correction", "min_effect", "bootstrap", "permutations", "gradients_at"),
}


def explain(
    model: Recogniser | nn.Module,
    concepts: Mapping[str, Clips],
    random: Clips | Mapping[str, Clips],
    examples: Mapping[str, Clips],
    layers: Sequence[str] | None = None,
    *,
    spec: NetworkSpec | None = None,
    groups: Groups | None = None,
    labels: Mapping[str, str] | None = None,
    movements: Collection[str] = (),
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
    **settings: Unpack[Settings],
) -> Explanation:
    """Test which concepts a recogniser uses, on clips in memory: no Ray, no files, and the same figures as a run.

    Clips are arrays `uint8 [N, T, H, W, 3]`, RGB, or sequences of `uint8 [T, H, W, 3]`; all have one T. The model runs
    where its weights are, and on a GPU so do the statistics.

    Args:
        model: one of our recognisers (`vtcav_ray.models.load_recogniser`), or a `torch.nn.Module` with `spec`.
        concepts: name -> clips that show the concept. `cup/spatial` also gives a kind; without one it is `given`.
        random: clips that concepts are compared with, matched to them in everything but the concept; if the concepts
            are of several kinds: kind -> clips.
        examples: class of the model -> clips of this class. The gradients are taken there.
        layers: aliases or names; `early@moving` gives one its own projection. None: those of `early`, `middle`, `late`
            and `head` that the model has.
        spec: class names and input of a plain `nn.Module`, which maps `[B, 3, T, H, W]` to `[B, K]`.
        groups: source video of each clip, which is the unit of all tests: `{"concepts": {name: [...]}, "random":
            [...], "examples": {class: [...]}}`. What is left out: each clip is its own source video.
        labels: source video -> class, for those of concepts and random clips whose class is known. The table then says
            how much of an effect lies within the classes.
        movements: names of the concepts that are movements. Only the verdicts' words depend on it.
        seed: of all draws.
        batch_size: views per model call. None: 8 on a CPU, found by trial on a GPU.
        progress: show a progress bar.
        **settings: `projection`, `target`, `views`, `precision`, `reference`, `solver`, `regularization`, `held_out`,
            `random_sets`, `relative`, `alpha`, `correction`, `min_effect`, `bootstrap`, `permutations` and
            `gradients_at`, as in a config, with the same defaults.

    Returns:
        The result cells, with one verdict per class.

    Raises:
        ValueError: clips of a wrong shape, an unknown class, a source video in two sets, or too few clips.
        TypeError: an unknown setting, or an `nn.Module` without `spec`.
        ConfigError: a layer that the model does not have, clips of a length that it does not take, or a bad setting.

    Example:
        >>> found = vtcav_ray.explain(
        ...     model, concepts={"up": up}, random=others, examples={"lift": lifts, "drop": drops}
        ... )
        >>> print(found.summary())
        >>> found.table.query("significant")
    """
    with left_unchanged(model) if isinstance(model, nn.Module) else nullcontext():
        recogniser = model if isinstance(model, Recogniser) else recogniser_of(model, spec)
        activations, cavs, scores = _sections(settings, _layers(recogniser, layers))
        sets = ClipSets.of(concepts, random, examples, groups, labels)
        _check_classes(recogniser, list(examples))
        work = _Work(recogniser, sets, activations, cavs, scores, seed, dict(labels or {}))
        with Steps(progress) as steps:
            measured = work.measure(steps, batch_size)
            made, warnings = work.score(measured, steps)
    return Explanation(
        scores=made["scores"],
        nulls=made["nulls"],
        layers=tuple(activations.layers),
        movements=frozenset(movements),
        warnings=(*_lost(measured, len(sets.rows)), *warnings),
        failures=tuple(measured.failures),
    )


@dataclass(frozen=True)
class _Work:
    """One call of `explain`."""

    recogniser: Recogniser
    sets: ClipSets
    activations: ActivationsConfig
    cavs: CavsConfig
    scores: ScoresConfig
    seed: int
    labels: Mapping[str, str]

    @property
    def device(self) -> Any:
        return self.recogniser.device

    def measure(self, steps: Steps, batch_size: int | None) -> ClipTables:
        """Run the model over all clips."""
        extractor = extractor_of(self.activations, self.recogniser, threads=2)
        rows = self.sets.rows
        if batch_size is not None:
            extractor.batch_size = batch_size
        elif self.device.type != "cpu":
            extractor.choose_batch_size(self.sets.clips[rows[0]["clip_id"]], gradients=True)
        class_of = {row["video_id"]: row["name"] for row in rows if row["set"] == "class"}
        wanted = self.activations.reference
        size = ClipsConfig().per_class if wanted is None else wanted
        advance = steps.begin("activations", len(rows))

        def read(row: dict[str, Any]) -> np.ndarray:
            advance(1)
            return self.sets.clips[row["clip_id"]]

        extract = ClipExtractor(self.recogniser, extractor, self.activations)
        return extract(rows, reference_classes(class_of, size, self.seed), read)

    def score(self, measured: ClipTables, steps: Steps) -> tuple[Mapping[str, pa.Table], list[str]]:
        """Train the CAVs, and compute and test all cells."""
        layers: list[LayerClips] = []
        cells: list[ScoreRow] = []
        nulls: list[NullRow] = []
        plan: Plan | None = None
        for layer in self.activations.layers:
            plan, data = self._with_cavs(layer, measured, plan, steps)
            scored = score_layer(data, self._options(plan))
            cells += scored.cells
            nulls += scored.nulls
            layers.append(data)
        assert plan is not None, "there is at least one layer"
        options = self._options(plan)
        answers = self._answers(measured, layers[0])
        more_cells, more_nulls = score_answers(answers, plan.jobs, options, [one.name for one in answers.clips.classes])
        found = corrected_tables(
            table_of([*cells, *more_cells], ScoreRow),
            table_of([*nulls, *more_nulls], NullRow),
            self._tested([*layers, answers.clips], plan, steps),
            layers=self.activations.layers,
            settings=self.scores,
            random_sets=self.cavs.random_sets,
        )
        return found.tables, [*plan.warnings, *found.warnings]

    def _with_cavs(self, layer: str, measured: ClipTables, plan: Plan | None, steps: Steps) -> tuple[Plan, LayerData]:
        """Train a layer's CAVs. `plan`: of another layer."""
        activations, gradients = self._tables(measured, layer)
        trained = LayerCavs(layer, activations, self.cavs, self.seed, None, self.device, plan=plan)
        plan = trained.plan
        if not plan.jobs:
            raise ValueError(f"No concept has enough clips. {' '.join(plan.warnings)}")
        each = BLOCK_CAVS // BLOCK_CHANCE  # CAVs of a comparison
        advance = steps.begin(f"CAVs at {layer}", len(plan.jobs) + each * len(plan.compared))
        cavs = _in_blocks(trained.cavs, len(plan.jobs), BLOCK_CAVS, advance, 1)
        chance = _in_blocks(trained.chance, len(plan.compared), BLOCK_CHANCE, advance, each)
        clips = layer_clips(layer, activations, gradients, self.scores.gradients_at)
        return plan, with_cavs(clips, plan.jobs, cavs, chance)

    def _tested(self, layers: Sequence[LayerClips], plan: Plan, steps: Steps) -> pa.Table:
        """Test every family; rows of `effect_tests`."""
        first = layers[0]
        tests = FamilyTests.of(
            layers, pool=first.pool, clip_ids=first.clip_ids, jobs=plan.jobs, label_of_video=self.labels
        )
        advance = steps.begin("tests", len(plan.compared))
        found = []
        for one in plan.compared:
            found.append(tests.of_families([(one.concept, one.against)], self._options(plan))[0])
            advance(1)
        return pa.concat_tables(found)

    def _tables(self, measured: ClipTables, layer: str) -> tuple[pa.Table, pa.Table]:
        activations, gradients = (measured.tables.get(f"{what}/layer={layer}") for what in ("activations", "gradients"))
        if activations is None or gradients is None:
            first = measured.failures[0].message if measured.failures else "there are no class examples"
            raise ValueError(f"Every class example failed at the layer `{layer}`: {first}.")
        return activations, gradients

    def _options(self, plan: Plan) -> ScoreOptions:
        settings = self.scores
        level = settings.alpha / len(plan.compared)
        return ScoreOptions(settings.bootstrap, settings.permutations, self.seed, self.device, level)

    def _answers(self, measured: ClipTables, clips: LayerClips) -> Answers:
        names = set()
        for layer in self.activations.layers:
            activations, gradients = self._tables(measured, layer)
            names |= set(classes_with_gradients(gradients, activations))
        return Answers.of(
            measured.tables["answers"],
            sorted(names),
            model=clips.model,
            pool=clips.pool,
            clip_ids=clips.clip_ids,
            target=self.activations.target,
        )


def _in_blocks(
    make: Callable[[int, int], pa.Table], count: int, size: int, advance: Callable[[int], None], each: int
) -> pa.Table:
    """Join the tables of blocks, as a run's shards hold them. `each`: steps of progress per item."""
    parts = []
    for begin in range(0, count, size):
        end = min(count, begin + size)
        parts.append(make(begin, end))
        advance(each * (end - begin))
    return pa.concat_tables(parts)


def _lost(measured: ClipTables, count: int) -> list[str]:
    """Return a sentence about the clips that can't be used."""
    if not measured.failures:
        return []
    first = measured.failures[0]
    return [
        f"{len(measured.failures)} of {count} clips can't be used. The first: {first.clip_id}, {first.message}. "
        "`failures` has all."
    ]


def _layers(recogniser: Recogniser, layers: Sequence[str] | None) -> tuple[str, ...]:
    if layers is not None:
        return (layers,) if isinstance(layers, str) else tuple(layers)
    found = tuple(alias for alias in ALIASES if alias in recogniser.layer_aliases)
    if not found:
        names = [name for name, _ in recogniser.module.named_children()]
        raise ValueError(f"layers: this model has no aliases. Name layers, such as {', '.join(names[:4])}.")
    return found


def _sections(
    settings: Mapping[str, Any], layers: tuple[str, ...]
) -> tuple[ActivationsConfig, CavsConfig, ScoresConfig]:
    """Check settings with the config's own sections.

    Raises:
        TypeError: an unknown name. ValueError: a value that the config does not allow.
    """
    known = [name for names in _SECTIONS.values() for name in names]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else f" There are: {', '.join(known)}."
            raise TypeError(f"explain() has no setting `{name}`.{hint}")
    chosen = [{name: settings[name] for name in names if name in settings} for names in _SECTIONS.values()]
    chosen[0]["layers"] = layers
    makers: Sequence[Callable[..., Any]] = [section.model_validate for section in _SECTIONS]
    try:
        activations, cavs, scores = (make(values) for make, values in zip(makers, chosen, strict=True))
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {message}") from error
    if scores.gradients_at == "all":
        raise ValueError("gradients_at: choose `reference` or `own`. At other examples there are no gradients here.")
    if scores.gradients_at == "reference" and activations.reference == 0:
        raise ValueError("reference: with 0, set gradients_at to `own`; or leave it out, for the default number.")
    return activations, cavs, scores


def _check_classes(recogniser: Recogniser, names: Sequence[str]) -> None:
    index = NameIndex(recogniser.class_names)
    for name in names:
        if name not in index:
            near = index.nearest(name)
            shown = ", ".join(recogniser.class_names[:6]) + ", ..." * (len(recogniser.class_names) > 6)
            hint = f" The nearest is {near!r}." if near else ""
            raise ValueError(f"examples: the model has no class {name!r}. It has: {shown}.{hint}")

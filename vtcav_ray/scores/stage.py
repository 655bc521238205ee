"""Stage `scores`: every result cell.

There are two kinds of shards. One is a layer and some of its classes: sign counts, effects and intervals. The other is
some families (a concept and its other side): the tests of their effects, for all classes and layers together. All run
in parallel. The corrections need all cells and come last (`correction`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from vtcav_ray import stages
from vtcav_ray.cavs.mix import Matching
from vtcav_ray.cavs.plan import Pool
from vtcav_ray.cavs.pool import POOL_COLUMNS, labels_of_rows, pool_of
from vtcav_ray.cavs.stage import labels_of, matching_of, read_plan
from vtcav_ray.clips.usable import AcceptedRows, read_left_out
from vtcav_ray.config import Config
from vtcav_ray.errors import StageError
from vtcav_ray.rows import NullRow, ScoreRow, SensitivityRow, table_of
from vtcav_ray.runs.devices import device_for
from vtcav_ray.runs.stage import Context, Shard, Stage, Work
from vtcav_ray.scores.class_names import classes_with_gradients
from vtcav_ray.scores.correction import correct
from vtcav_ray.scores.responses import ReadResponses
from vtcav_ray.stages import ANSWER
from vtcav_ray.store.commits import ShardOutput, StageFolder

if TYPE_CHECKING:
    from vtcav_ray.scores.answers import Answers
    from vtcav_ray.scores.family_tests import FamilyTests
    from vtcav_ray.scores.layer_data import LayerClips, LayerData, ScoreOptions

# Classes per shard: seconds of work for 500 concepts, to outweigh reading all CAVs of a layer.
BLOCK_CLASSES = 8
BLOCK_TESTS = 256  # cells per shard of families: seconds of work, unless a single family has more
NO_GRADIENTS = (
    "There is nothing to score: no class example has a gradient. Use labels of the model (one folder per class, or "
    "videos.labels); see `vtcav table RUN failures`."
)


def _prepare(context: Context) -> Work:
    config = context.config
    cavs = context.input("cavs")
    activations = AcceptedRows.of(context.input("activations"), read_left_out(cavs))
    responses = context.input("responses") if config.scores.effect == "patch" else None
    clips = context.input("clips")
    matching = matching_of(clips, config)
    families = families_of(activations, config, matching)
    shards, num_cells = [], 0
    for number, (layer, names) in enumerate(_classes_of(activations, config).items()):
        num_cells += len(names)
        for block, start in enumerate(range(0, len(names), BLOCK_CLASSES)):
            of = pa.table({"layer": [layer], "classes": [names[start : start + BLOCK_CLASSES]]})
            shards.append(Shard(f"{number:02d}-{layer}-{block:04d}", of))
    if not shards:
        raise StageError(NO_GRADIENTS)
    return Work(
        shards=shards + family_shards(families, num_cells),
        make_worker=functools.partial(
            ScoreWorker,
            config,
            activations,
            cavs,
            labels_of(clips),
            matching,
            responses,
            len(families),
        ),
        resources=config.resources.statistics,
        notes={"gradients_at": config.scores.gradients_at, "effect": config.scores.effect},
        finish=functools.partial(correct, config),
    )


def families_of(activations: StageFolder, config: Config, matching: Matching | None) -> list[tuple[str, str]]:
    """Return every (concept, against) of the run."""
    jobs = read_plan(activations, config.activations.layers[0], config, matching).jobs
    return list(dict.fromkeys((job.concept, job.against) for job in jobs if not job.is_null))


def family_shards(families: Sequence[tuple[str, str]], num_cells: int) -> list[Shard]:
    """Return shards of families, (concept, against), with `num_cells` cells each."""
    size = max(1, BLOCK_TESTS // num_cells)
    shards = []
    for block, start in enumerate(range(0, len(families), size)):
        concepts, against = zip(*families[start : start + size], strict=True)
        shards.append(Shard(f"families-{block:05d}", pa.table({"concept": concepts, "against": against})))
    return shards


def _classes_of(activations: StageFolder, config: Config) -> dict[str, list[str]]:
    """Return layer -> the classes of its cells. `answer` has those of all layers; none if there are no answers."""
    found = {layer: _classes_with_gradients(activations, layer) for layer in config.activations.layers}
    older = not activations.files("answers")
    return found | {ANSWER: [] if older else sorted(set().union(*found.values()))}


def _classes_with_gradients(activations: StageFolder, layer: str) -> list[str]:
    """Return the classes that have a gradient at one of their own clips."""
    gradients = activations.read("gradients", columns=("clip_id", "class"), layer=layer)
    clips = activations.read("activations", columns=("clip_id", "name"), layer=layer)
    return [] if gradients is None or clips is None else classes_with_gradients(gradients, clips)


def _ingredients(context: Context) -> dict[str, Any]:
    config = context.config
    # Not at the default, so that keys of runs without it stay the same. `random_labels` is in the key of the CAVs.
    labels = {"concept_labels": config.clips.concept_labels} if config.clips.concept_labels != "any" else {}
    return {"scores": config.scores.model_dump(mode="json"), "seed": config.seed, **labels}


STAGE = Stage(stages.SCORES, version=9, ingredients=_ingredients, prepare=_prepare)


# With `scores.effect: patch`, the stage also reads the responses of the model.
STAGE_OF_PATCHES = dataclasses.replace(
    STAGE, facts=dataclasses.replace(stages.SCORES, inputs=(*stages.SCORES.inputs, stages.RESPONSES.name))
)


class ScoreWorker:
    """Scores some classes of one layer, or tests some families. Keeps what the next shard of the same kind needs.

    Args:
        config: the whole config.
        activations, cavs: the stages.
        labels: label of each source video.
        responses: the stage, for `scores.effect: patch`; None: the first-order effect.
        num_families: number of families of the run.
    """

    def __init__(
        self,
        config: Config,
        activations: StageFolder,
        cavs: StageFolder,
        labels: dict[str, str],
        matching: Matching | None = None,
        responses: StageFolder | None = None,
        num_families: int = 1,
    ) -> None:
        self._responses = None if responses is None else ReadResponses(responses, activations, config)
        self._level = config.scores.alpha / num_families
        self.config = config
        self.activations = activations
        self.cavs = cavs
        self._label_of_video = labels
        self._matching = matching
        self._device = device_for(config.resources.statistics)
        self._kept: LayerData | None = None
        self._tests: FamilyTests | None = None
        self._answers: Answers | None = None

    def __call__(self, rows: pa.Table) -> ShardOutput:
        if "layer" in rows.column_names:
            return self._score(rows["layer"][0].as_py(), rows["classes"][0].as_py())
        return self._test(list(zip(rows["concept"].to_pylist(), rows["against"].to_pylist(), strict=True)))

    def _options(self, pool: Pool) -> ScoreOptions:
        from vtcav_ray.scores.layer_data import ScoreOptions

        settings = self.config.scores
        other = self.config.clips.concept_labels == "other"
        labels_N = labels_of_rows(self._label_of_video, pool.video_id) if other else None
        return ScoreOptions(
            settings.bootstrap, settings.permutations, self.config.seed, self._device, self._level, labels_N
        )

    def _score(self, layer: str, classes: list[str]) -> ShardOutput:
        from vtcav_ray.scores.layer import score_layer

        self._tests = None
        if layer == ANSWER:
            return self._score_answers(classes)
        if self._kept is None or self._kept.layer != layer:
            self._kept = None  # never hold two layers in memory
            self._kept = self._read_with_cavs(layer)
        data = self._kept
        wanted = dataclasses.replace(data, classes=[one for one in data.classes if one.name in classes])
        scored = score_layer(wanted, self._options(data.pool))
        return ShardOutput(
            {
                f"cells/layer={layer}": table_of(scored.cells, ScoreRow),
                f"sensitivities/layer={layer}": table_of(scored.sensitivities, SensitivityRow),
                f"score_nulls/layer={layer}": table_of(scored.nulls, NullRow),
            },
            metrics={"cells": len(scored.cells)},
        )

    def _score_answers(self, classes: list[str]) -> ShardOutput:
        from vtcav_ray.scores.answers import score_answers

        self._kept = None
        if self._answers is None:
            self._answers = self._read_answers()
        jobs = read_plan(self.activations, self.config.activations.layers[0], self.config, self._matching).jobs
        cells, nulls = score_answers(self._answers, jobs, self._options(self._answers.clips.pool), classes)
        return ShardOutput(
            {
                f"cells/layer={ANSWER}": table_of(cells, ScoreRow),
                f"score_nulls/layer={ANSWER}": table_of(nulls, NullRow),
            },
            metrics={"cells": len(cells)},
        )

    def _test(self, families: list[tuple[str, str]]) -> ShardOutput:
        self._kept = None
        if self._tests is None:
            self._tests = self._prepare_tests()
        tests, counts = self._tests.of_families(families, self._options(self._tests.pool))
        return ShardOutput({"effect_tests": tests, "composition": counts}, metrics={"tests": tests.num_rows})

    def _prepare_tests(self) -> FamilyTests:
        from vtcav_ray.scores.family_tests import FamilyTests

        layers = self.config.activations.layers
        with_cells = [layer for layer, names in _classes_of(self.activations, self.config).items() if names]
        names = self.activations.read("activations", columns=("clip_id", *POOL_COLUMNS), layer=layers[0])
        assert names is not None, "the CAVs were made from this table"
        clip_ids = names["clip_id"].to_pylist()
        return FamilyTests.of(
            (self._read(layer) for layer in with_cells),
            pool=pool_of(names, self._matching),
            clip_ids=clip_ids,
            jobs=read_plan(self.activations, layers[0], self.config, self._matching).jobs,
            label_of_video=self._label_of_video,
            there_N=None if self._responses is None else self._responses.there(clip_ids),
        )

    def _read(self, layer: str) -> LayerClips:
        from vtcav_ray.scores.inputs import layer_clips

        if layer == ANSWER:
            return self._read_answers().clips
        columns = ("clip_id", *POOL_COLUMNS, "model", "vector")
        pool = self.activations.read("activations", columns=columns, layer=layer)
        gradients = self.activations.read("gradients", layer=layer)
        assert pool is not None, "the CAVs were made from this table"
        assert gradients is not None, "the shards were made from this table"
        found = layer_clips(layer, pool, gradients, self.config.scores.gradients_at, self._matching)
        if self._responses is None:
            return found
        own = dict(zip(pool["clip_id"].to_pylist(), pool["name"].to_pylist(), strict=True))
        return self._responses.added_to(found, gradients, own)

    def _read_answers(self) -> Answers:
        from vtcav_ray.scores.answers import Answers

        settings = self.config.activations
        answers = self.activations.read("answers", columns=("clip_id", "logits"))
        pool = self.activations.read(
            "activations", columns=("clip_id", *POOL_COLUMNS, "model"), layer=settings.layers[0]
        )
        assert answers is not None, "the shards were made from this table"
        assert pool is not None, "the CAVs were made from this table"
        clip_ids = pool["clip_id"].to_pylist()
        return Answers.of(
            answers,
            _classes_of(self.activations, self.config)[ANSWER],
            model=pool["model"][0].as_py(),
            pool=pool_of(pool, self._matching),
            clip_ids=clip_ids,
            target=settings.target,
            there_N=None if self._responses is None else self._responses.there(clip_ids),
        )

    def _read_with_cavs(self, layer: str) -> LayerData:
        from vtcav_ray.scores.inputs import with_cavs

        cavs = self.cavs.read("cavs", columns=("concept", "held_out_accuracy", "vector", "reason"), layer=layer)
        chance = self.cavs.read("chance", columns=("concept", "against", "draw", "accuracy"), layer=layer)
        assert cavs is not None, "the cavs stage is complete"
        assert chance is not None, "every comparison has accuracies"
        jobs = read_plan(self.activations, layer, self.config, self._matching).jobs
        return with_cavs(self._read(layer), jobs, cavs, chance)

"""`vtcav explain` on a small planted run: tables, the model, new files, failures, JSON, the page, and the mistakes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.helpers.planted_run import PlantedRun
from vtcav_ray import cli, tables
from vtcav_ray.errors import EXIT_TOO_MANY_FAILED, ConfigError
from vtcav_ray.runs.run import Run
from vtcav_ray.store.commits import StageFolder
from vtcav_ray.tcav import concept_effect
from vtcav_ray.why import explain_videos, run_mistakes, subjects
from vtcav_ray.why.concepts import RunConcepts
from vtcav_ray.why.page import build_page
from vtcav_ray.why.pushes import push
from vtcav_ray.why.run import Explanation
from vtcav_ray.why.run_mistakes import mistakes_of_run, read_examples
from vtcav_ray.why.subjects import FROM_TABLES, Answers, Model, read_answers, subjects_from_tables

pytestmark = pytest.mark.slow

KEYS = ("concept", "layer", "presence", "push", "ci_low", "ci_high")


@pytest.fixture(scope="module")
def run(planted: PlantedRun) -> Run:
    return planted.run


@pytest.fixture(scope="module")
def examples(run: Run) -> dict[str, Answers]:
    return read_answers(run)


@pytest.fixture(scope="module")
def in_tables(run: Run, examples: dict[str, Answers]) -> list[str]:
    """The class examples whose gradients are all in the tables: the reference set, at least."""
    return sorted(subjects_from_tables(run, list(examples.values())))


def by_cell(explanation: Explanation) -> dict[tuple[str, str], Any]:
    return {(one.concept, one.layer): one for one in explanation.concepts}


def invoked(*words: str) -> Any:
    return CliRunner().invoke(cli.application.app, ["explain", *words], env={"COLUMNS": "160"})


def test_an_example_is_explained_from_the_tables_without_the_model(
    run: Run, in_tables: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(Model, "_loaded", refused)
    (found,) = explain_videos(run, run.config, in_tables[:1]).explanations
    assert found.source == FROM_TABLES
    assert found.label is not None
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert list(found.probabilities)[:2] == [found.predicted, found.runner_up]
    concepts = {row["concept"] for row in run.table("scores", columns=["concept"]).to_pylist()}
    assert by_cell(found).keys() == {(c, layer) for c in concepts for layer in run.config.activations.layers}
    weights = [abs(one.weight) for one in found.concepts]
    assert weights == sorted(weights, reverse=True)
    for one in found.concepts:
        assert 0 <= one.presence <= 1
        assert one.ci_low <= one.ci_high


def test_the_tables_and_the_model_agree(run: Run, examples: dict[str, Answers], in_tables: list[str]) -> None:
    answers = examples[in_tables[0]]
    stored = subjects_from_tables(run, [answers])[answers.video]
    frames = subjects.stored_frames(run, answers.clip_ids)
    computed = Model(run, run.config).subject(answers.video, answers.label, frames, "a test")
    assert computed.likeliest == stored.likeliest
    np.testing.assert_allclose(computed.logits, stored.logits, atol=1e-3)
    for layer in run.config.activations.layers:
        assert computed.gains[layer] == pytest.approx(stored.gains[layer], rel=1e-3)
        np.testing.assert_allclose(computed.activations[layer], stored.activations[layer], rtol=1e-3, atol=1e-3)
        for name in stored.likeliest:
            one, other = computed.gradients[layer][name], stored.gradients[layer][name]
            np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-2 * np.abs(other).max())


def test_the_mean_push_over_the_reference_set_is_the_concept_effect_times_the_gain(run: Run) -> None:
    gradients = run.table("gradients", layer="late")
    reference = gradients.filter(gradients["reference"])
    examples = read_answers(run, reference["video_id"].to_pylist())
    seen = subjects_from_tables(run, list(examples.values()))
    concepts = RunConcepts.of(run)
    pool = concepts.layer("late")
    for name in sorted(set(reference["class"].to_pylist())):
        slopes = [one.gradients["late"][name] for one in seen.values()]
        gains = {one.gains["late"] for one in seen.values()}
        assert len(gains) == 1
        for clips in concepts.concepts:
            videos = [concepts.videos[row] for row in (*clips.own, *clips.random)]
            known = concept_effect(
                np.stack(slopes),
                pool.vectors[clips.own],
                pool.vectors[clips.random],
                groups=videos,
                permutations=1,
                bootstrap=2,
            )
            pushes = [push(pool.vectors @ g, concepts.videos, clips, max(gains)).push for g in slopes]
            assert np.mean(pushes) == pytest.approx(max(gains) * known.effect, rel=1e-4, abs=1e-6)


def test_an_example_outside_the_reference_set_takes_one_pass_on_its_stored_clip(
    run: Run, examples: dict[str, Answers], in_tables: list[str]
) -> None:
    others = sorted(set(examples) - set(in_tables))
    if not others:
        pytest.skip("every example of this run is in the reference set")
    (found,) = explain_videos(run, run.config, others[:1]).explanations
    assert found.source.startswith("a forward and backward pass")
    logits = examples[others[0]].logits
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert found.probabilities[found.predicted] == pytest.approx(expected.max(), abs=1e-3)


def test_a_copy_of_an_example_gets_the_same_explanation(run: Run, in_tables: list[str], tmp_path: Path) -> None:
    (uri,) = (row["uri"] for row in run.table("videos").to_pylist() if row["video_id"] == in_tables[0])
    new = tmp_path / "new.mp4"
    shutil.copy(uri, new)
    known, copied = explain_videos(run, run.config, [in_tables[0], str(new)]).explanations
    assert copied.label is None
    assert "no video of the run" in copied.source
    assert (copied.predicted, copied.runner_up) == (known.predicted, known.runner_up)
    ours, theirs = by_cell(known), by_cell(copied)
    for cell, one in ours.items():
        assert theirs[cell].presence == pytest.approx(one.presence, abs=0.02), cell
        assert theirs[cell].push == pytest.approx(one.push, rel=1e-2, abs=1e-3), cell


def test_a_bad_video_is_named_and_the_others_are_explained(
    planted: PlantedRun, in_tables: list[str], tmp_path: Path
) -> None:
    empty, page = tmp_path / "empty.mp4", tmp_path / "pages" / "why.html"
    empty.touch()
    words = [str(empty), in_tables[0], str(tmp_path / "gone.mp4"), "ftp://host/a.mp4", "--html", str(page), "--json"]
    found = invoked(planted.run.url, *words)
    assert found.exit_code == EXIT_TOO_MANY_FAILED
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    assert [line["video"] for line in lines] == [in_tables[0]]
    assert {"video", "label", "predicted", "probabilities", "concepts"} <= lines[0].keys()
    assert set(KEYS) <= lines[0]["concepts"][0].keys()
    for name in (str(empty), "gone.mp4", "ftp://host/a.mp4"):
        assert name in found.stderr
    html = page.read_text()
    assert in_tables[0] in html
    assert "Not explained" in html
    assert "empty.mp4" in html


def test_a_good_video_prints_its_answer_and_its_concepts(planted: PlantedRun, in_tables: list[str]) -> None:
    found = invoked(planted.run.url, in_tables[0])
    assert found.exit_code == 0, found.stderr
    assert "The model answers" in found.stdout
    assert "moving" in found.stdout


def test_text_from_outside_is_escaped_on_the_page(run: Run, in_tables: list[str]) -> None:
    (one,) = explain_videos(run, run.config, in_tables[:1]).explanations
    html = build_page([replace(one, video="<script>alert(1)</script>")], "run", [("<b>", "<i>")])
    assert "<script>alert" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;alert" in html


def test_an_older_run_is_an_error_that_says_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StageFolder, "files", lambda self, table, **_: [])
    with pytest.raises(ConfigError, match=r"no table `answers`.*Run it again"):
        explain_videos(run, run.config, ["x"])


def test_the_mistakes_of_a_run_are_tested_and_ranked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # The planted recogniser makes hardly any mistake. So swap the labels of some examples whose motion is not theirs.
    answers = read_answers(run)
    other = {"lift": "put_down", "put_down": "lift", "push_left": "push_right", "push_right": "push_left"}
    wrong = {video for i, video in enumerate(sorted(answers)) if i % 3 == 0}
    relabelled = {
        v: replace(a, label=other[a.label], labels=other[a.label]) if v in wrong else a for v, a in answers.items()
    }
    monkeypatch.setattr(run_mistakes, "read_answers", lambda _: relabelled)
    examples = read_examples(run)
    assert {v for v, m in zip(examples.videos, examples.mistaken, strict=True) if m} == {
        v for v, a in relabelled.items() if a.classes[int(np.argmax(a.logits))] != a.label
    }
    found = mistakes_of_run(run)
    assert found.schema.equals(tables.MISTAKES)
    rows = found.to_pylist()
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[0]["n_mistakes"] == examples.mistaken.sum()
    assert rows[0]["n_correct"] == (~examples.mistaken).sum()
    # What an upward-moving clip has too much of, if it is said to be put down, is its upward motion.
    assert rows[0]["difference"] > 0
    best = {row["concept"]: row["rank"] for row in reversed(rows)}
    assert best["moving up/context"] == 1


def test_the_stored_table_is_that_of_the_run_and_the_report_shows_it(run: Run) -> None:
    stored = run.table("mistakes")
    assert stored.schema.names == tables.MISTAKES.names
    assert stored.to_pylist() == mistakes_of_run(run).to_pylist()
    html = run.folder.read_bytes("report.html").decode()
    assert 'id="mistakes"' in html
    assert "Mistakes of the model" in html

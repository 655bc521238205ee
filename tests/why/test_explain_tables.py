"""`vtcav explain` on class examples of a run whose tables are written by hand: every figure is known."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.helpers.compared_runs import CUP, LAYER, RANDOM, SHIFT, write_run
from tests.helpers.page_figures import EXPLAINED
from vtcav_ray import cli
from vtcav_ray.cli.explain import print_explanation
from vtcav_ray.errors import EXIT_TOO_MANY_FAILED, ConfigError
from vtcav_ray.runs.run import Run
from vtcav_ray.why import explain_videos
from vtcav_ray.why.subjects import FROM_TABLES

GAIN = 8.0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("run"), 2.0, gain=GAIN, references=2)


def invoked(*words: str) -> Any:
    return CliRunner().invoke(cli.application.app, ["explain", *words], env={"COLUMNS": "200"})


def test_an_example_is_explained_from_the_tables(run: Run) -> None:
    found = explain_videos(run, run.config, ["v/lift-0", "v/drop-0", "v/lift-0"])
    assert found.failures == []
    lift, drop = found.explanations
    assert (lift.video, lift.label, lift.predicted, lift.runner_up) == ("v/lift-0", "lift", "lift", "drop")
    assert list(lift.probabilities) == ["lift", "drop"]
    assert lift.probabilities["lift"] == pytest.approx(1 / (1 + np.exp(-1.0)))  # logits 2 and 1
    assert (lift.target, lift.source) == ("logit", FROM_TABLES)
    (cup,) = lift.concepts
    assert (cup.concept, cup.layer) == ("cup/spatial", LAYER)
    assert (cup.push, cup.push_runner_up) == pytest.approx((2 * SHIFT, -SHIFT), abs=1e-5)
    assert cup.presence == pytest.approx(2 / 2 / 8)  # the example is at 0, as are two of the eight random clips
    assert cup.weight == pytest.approx(3 * SHIFT / 8, abs=1e-5)
    (other,) = drop.concepts
    assert (drop.predicted, other.push, other.push_runner_up) == ("drop", -cup.push / 2, cup.push)


def test_the_interval_is_over_the_runs_random_sets(run: Run) -> None:
    (found,) = explain_videos(run, run.config, ["v/lift-1"]).explanations
    (cup,) = found.concepts
    least, most = (CUP[:, 0].mean() - np.sort(RANDOM[:, 0])[side].mean() for side in (slice(4, 8), slice(0, 4)))
    assert 2 * least - 1e-5 <= cup.ci_low < cup.push < cup.ci_high <= 2 * most + 1e-5
    assert (cup.runner_up_ci_high, cup.runner_up_ci_low) == pytest.approx((-cup.ci_low / 2, -cup.ci_high / 2), abs=1e-5)


def test_a_gradient_is_that_of_the_example(run: Run) -> None:
    """Outside of the reference set, the gradients are twice as large."""
    (found,) = explain_videos(run, run.config, ["/nowhere/v/lift-2.mp4"]).explanations
    assert found.video == "v/lift-2"
    assert found.concepts[0].push == pytest.approx(2 * 2 * SHIFT, abs=1e-5)


def test_a_wrong_answer_keeps_the_true_label(run: Run) -> None:
    (found,) = explain_videos(run, run.config, ["v/drop-2"]).explanations
    assert (found.label, found.predicted, found.runner_up) == ("drop", "lift", "drop")


def test_what_can_not_be_read_is_a_failure_and_the_others_are_explained(run: Run, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    names = ["v/cup-0", str(tmp_path / "absent.mp4"), str(text), "v/lift-0"]
    found = explain_videos(run, run.config, names)
    assert [one.video for one in found.explanations] == ["v/lift-0"]
    assert [name for name, _ in found.failures] == names[:3]
    assert all(message for _, message in found.failures)


def test_a_run_without_answers_is_refused(tmp_path: Path) -> None:
    from vtcav_ray.store.commits import ShardOutput

    old = write_run(tmp_path, 1.0)
    activations = old.stage("activations")
    table = activations.read("activations", layer=LAYER)
    assert table is not None
    activations.commit("0", ShardOutput({f"activations/layer={LAYER}": table}))
    activations.finish({}, {"notes": {}, "warnings": []})
    with pytest.raises(ConfigError, match="older version made its activations"):
        explain_videos(Run(old.url), old.config, ["v/lift-0"])


def test_the_command_prints_the_concepts_and_writes_the_page(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    result = invoked(run.url, "v/lift-0", "--html", str(page))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "v/lift-0: The model answers lift (probability 0.731), which is right. The runner-up is drop."
    assert lines[2].split()[:4] == ["cup/spatial", LAYER, "12%", "+6.00"]
    assert lines[2].split()[-2:] == ["−3.00", "+1.12"]
    assert lines[-1] == f"Page: {page}"
    assert "v/lift-0" in page.read_text(encoding="utf-8")
    wrong = invoked(run.url, "v/lift-0", "--html", str(tmp_path))
    assert isinstance(wrong.exception, ConfigError)
    assert "Choose another --html" in str(wrong.exception)


def test_json_has_a_line_for_each_video_and_failures_are_apart(run: Run) -> None:
    result = invoked(run.url, "v/lift-0", "/nowhere/absent.mp4", "v/drop-0", "--json")
    assert result.exit_code == EXIT_TOO_MANY_FAILED
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["video"] for one in found] == ["v/lift-0", "v/drop-0"]
    assert found[0]["concepts"][0]["weight"] == pytest.approx(3 * SHIFT / 8, abs=1e-5)
    assert result.stderr.startswith("vtcav: /nowhere/absent.mp4 is not explained: ")


def printed(**changes: Any) -> list[str]:
    text = io.StringIO()
    print_explanation(replace(EXPLAINED, **changes), Console(file=text, width=200))
    return text.getvalue().splitlines()


def test_the_table_has_the_ten_largest_weights_and_says_what_they_are() -> None:
    first = EXPLAINED.concepts[0]
    many = [replace(first, concept=f"concept {i}/context") for i in range(12)]
    lines = printed(concepts=many)
    names = [f"concept {i}/context" for i in range(10)]
    assert [line[: len(name)] for line, name in zip(lines[2:], names, strict=False)] == names
    caption = " ".join(" ".join(lines[12:]).split())
    assert "concept 10/context" not in caption
    assert caption.startswith(
        "push: change of the logit of push_left; weight: presence x (push - push on the runner-up, lift)"
    )
    assert "numbers from the run's tables" in caption


@pytest.mark.parametrize(("target", "name"), [("log_odds", "log odds"), ("log_probability", "log probability")])
def test_the_caption_names_the_target(target: str, name: str) -> None:
    caption = " ".join(" ".join(printed(target=target)).split())
    assert f"push: change of the {name} of push_left;" in caption


def test_what_a_terminal_would_obey_is_shown_as_text() -> None:
    lines = printed(video="a\x1b[31m[red].mp4")
    assert "\x1b" not in "".join(lines)
    assert "[red].mp4" in lines[0]

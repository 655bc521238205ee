"""What a newcomer reads in the terminal: every help, and what run, table, explain and plan print.

The pages are checked with the same words in tests/pages/test_every_page.py. Names of columns and of options are not
words of a sentence, and stay.
"""

from __future__ import annotations

import io
import re

import pytest
import typer.main
from rich.console import Console
from typer.testing import CliRunner

from tests.helpers.plain_words import INSIDE
from tests.helpers.planted_run import PlantedRun
from vtcav_ray import cli
from vtcav_ray.cli.plan import print_plan
from vtcav_ray.cli.run import _print_done
from vtcav_ray.pipeline import failed_inputs
from vtcav_ray.planning.counts import Range
from vtcav_ray.planning.estimate import Plan
from vtcav_ray.runs.run import Run

COMMANDS = sorted(typer.main.get_command(cli.application.app).commands)  # type: ignore[attr-defined]
WIDE = {"COLUMNS": "200"}


def shown(*words: str) -> str:
    found = CliRunner().invoke(cli.application.app, list(words), env=WIDE)
    assert found.exit_code == 0, found.output
    return found.output


def words_of_the_code(text: str) -> list[str]:
    """Return the lines with such a word, but for names of options."""
    plain = re.sub(r"--[a-z-]+", "", text)
    return [line for line in plain.splitlines() if INSIDE.search(line)]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command: str) -> None:
    text = shown(*filter(None, [command]), "--help")
    assert "Usage" in text
    assert words_of_the_code(text) == []


def test_the_words_would_be_found() -> None:
    lines = ["--cells: significant", "Look at it", "of all cells", "its own twin", "the rest of its kind", "it looks"]
    assert words_of_the_code("\n".join(lines)) == lines[1:]


def test_plan() -> None:
    one = Range(1.0, 2.0, 3.0)
    stages = ("tracks", "clips", "activations", "responses", "cavs", "scores")
    seconds = dict.fromkeys(stages, one)
    found = Plan(9, 3, one, one, 40, 50, one, seconds, one, one, one, one, "EUR", "tracks", ("A note.",))
    sink = io.StringIO()
    print_plan(found, Console(file=sink, width=160))
    assert "50 comparisons" in sink.getvalue()
    assert words_of_the_code(sink.getvalue()) == []


@pytest.mark.slow
def test_run_table_and_explain(planted: PlantedRun) -> None:
    run = planted.run
    sink = io.StringIO()
    _print_done(run, failed_inputs(run), Console(file=sink, width=160))
    assert "Report: " in sink.getvalue()
    video = run.table("activations", columns=["video_id", "set"], layer="late").to_pylist()
    example = next(row["video_id"] for row in video if row["set"] == "class")
    for text in (sink.getvalue(), *(shown(*words) for words in _commands(run, example))):
        assert len(text) > 100
        assert words_of_the_code(text) == []


def _commands(run: Run, example: str) -> list[list[str]]:
    tables = ("verdicts", "mistakes", "scores", "cavs")
    return [["table", run.url], *(["table", run.url, name] for name in tables), ["explain", run.url, example]]

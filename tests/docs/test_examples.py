"""Every example of the README and of docs/ runs, or at least parses if it needs something that a test lacks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.helpers.planted_run import PlantedRun
from tests.helpers.small_runs import without_ray
from vtcav_ray import cli
from vtcav_ray.config.loading import parse_config

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[Any]:
    return list(_blocks(language))


def _blocks(language: str) -> Iterator[Any]:
    for page in PAGES:
        for number, (found, text) in enumerate(FENCE.findall(page.read_text(encoding="utf-8"))):
            if found == language:
                yield pytest.param(text, id=f"{page.name}-{number}")


def commands(text: str) -> list[list[str]]:
    """Return the `vtcav` commands of a shell block, as words; `[--option X]...` in a synopsis counts as given once."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    found = []
    for line in lines:
        words = shlex.split(re.sub(r"\[(?=-)|(?<=\w)\](\.\.\.)?", "", line.partition(" #")[0]))
        if words and words[0].rpartition("/")[2] == "vtcav":
            found.append(words[1:])
    return found


@pytest.mark.parametrize("text", blocks("sh"))
def test_every_command_and_option_exists(text: str) -> None:
    for words in commands(text):
        # This parses the arguments and then shows the help instead of running anything.
        result = CliRunner().invoke(cli.app, [*words, "--help"], env={"COLUMNS": "200"})
        assert result.exit_code == 0, f"vtcav {' '.join(words)}: {result.output}"
        shown = " ".join(result.output.split())
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert option in shown, f"vtcav {words[0]} has no {option}"


def test_the_parser_of_examples_sees_them() -> None:
    shown = commands(
        "vtcav run CONFIG [--out URL] [--set a=b]...   # 0 done\n.venv/bin/vtcav plan c \\\n   --sample 4\nls\n"
    )
    assert shown == [["run", "CONFIG", "--out", "URL", "--set", "a=b"], ["plan", "c", "--sample", "4"]]
    assert sum(len(commands(text.values[0])) for text in blocks("sh")) >= 15


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_config_is_valid(text: str) -> None:
    data = yaml.safe_load(text)
    if isinstance(data, dict):
        parse_config({"videos": {"uri": "x"}, **data})


@pytest.mark.slow
def test_python_examples_run(planted: PlantedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's, on the planted run, whose stages are complete; then those of docs/report.md on its result."""
    import glob

    import vtcav_ray

    config = planted.config(planted.copy(tmp_path / "run"))
    monkeypatch.setattr(vtcav_ray, "load_config", lambda path: config if (ROOT / path).is_file() else None)
    names: dict[str, Any] = {"glob": glob}
    ran = 0
    with without_ray():
        for page in (ROOT / "README.md", ROOT / "docs" / "report.md"):
            for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
                if language == "python":
                    exec(compile(text, str(page), "exec"), names)
                    names["run_url"] = names["result"].url
                    ran += 1
    assert ran >= 2
    assert names["result"].table("scores").num_rows > 0


def test_the_pages_are_linked_to_what_is_there() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"

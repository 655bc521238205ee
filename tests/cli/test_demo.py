"""`vtcav open` finds the report, and the help shows groups, examples and pages.

tests/tooling/test_wheel.py runs `vtcav demo` without a checkout.
"""

from __future__ import annotations

import webbrowser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.helpers.planted_run import PlantedRun
from vtcav_ray import cli
from vtcav_ray.cli.application import app
from vtcav_ray.cli.help import EXAMPLES, GROUPS, PAGES, name_of
from vtcav_ray.config.loading import load_config
from vtcav_ray.errors import ConfigError
from vtcav_ray.store.folder import Folder

ROOT = Path(__file__).parents[2]


def test_the_packaged_quickstart_is_the_one_of_the_checkout() -> None:
    packaged = load_config("asset:quickstart.yaml")
    assert packaged == load_config(str(ROOT / "configs" / "quickstart.yaml"))
    assert packaged.videos.world is not None


@pytest.mark.slow
def test_open_shows_the_report(planted: PlantedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: seen.append(url) or True)
    result = CliRunner().invoke(cli.app, ["open", planted.run.url])
    assert result.exit_code == 0, result.output
    assert seen == [Path(planted.run.report_url).as_uri()]
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    without = CliRunner().invoke(cli.app, ["open", planted.run.url])
    assert without.exit_code == 0
    assert "There is no browser here" in without.output


def test_open_says_that_there_is_no_report_yet(tmp_path: Path) -> None:
    record = {"config": {"videos": {"uri": "x"}}, "keys": {}, "status": "stopped: clips"}
    Folder(str(tmp_path)).write_json("run.json", record)
    result = CliRunner().invoke(cli.app, ["open", str(tmp_path)])
    assert isinstance(result.exception, ConfigError)
    assert "stopped: clips" in str(result.exception)


def test_the_help_has_groups_and_examples() -> None:
    text = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "160"}).output
    places = [text.index(group) for group in GROUPS]
    assert places == sorted(places)
    assert all(" ".join(line.split()) in " ".join(text.split()) for line in EXAMPLES)


@pytest.mark.parametrize("command", app.registered_commands, ids=name_of)
def test_every_help_has_an_example_and_a_page(command: object) -> None:
    name = name_of(command)  # type: ignore[arg-type]
    example, page = next(commands[name] for commands in GROUPS.values() if name in commands)
    text = " ".join(CliRunner().invoke(cli.app, [name, "--help"], env={"COLUMNS": "200"}).output.split())
    assert example in text
    assert f"{PAGES}{page}" in text
    assert (ROOT / "docs" / page).is_file()
    assert example.split()[:2] == ["vtcav", name]

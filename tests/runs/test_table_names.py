"""The tables that `vtcav table` offers are those that it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vtcav_ray import cli
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError
from vtcav_ray.runs.run import Run
from vtcav_ray.stages import ALL_TABLES, PRINTED


def test_every_table_and_command_is_listed() -> None:
    help_of_table = " ".join(CliRunner().invoke(cli.app, ["table", "--help"], env={"COLUMNS": "400"}).output.split())
    assert {"copies", "duplicates", "interventions", "failures", "patch_effects"} <= set(ALL_TABLES)
    for name in ALL_TABLES:
        assert name in help_of_table
    commands = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "200"}).output
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    listed = {command.name or getattr(command.callback, "__name__", "") for command in cli.app.registered_commands}
    assert {"retry-failed", "status", "intervene"} <= listed
    for name in listed:
        assert f" {name} " in commands
        assert f"vtcav {name}" in readme


def test_an_unknown_table_names_all_of_them(tmp_path: Path) -> None:
    config = parse_config({"videos": {"uri": "v"}}).model_dump(mode="json")
    (tmp_path / "run.json").write_text(json.dumps({"config": config, "keys": {}}))
    with pytest.raises(ConfigError, match=r"copies.*interventions"):
        Run(str(tmp_path))._stage_of("copie")
    assert all(Run(str(tmp_path))._stage_of(name) == "clips" for name in PRINTED)

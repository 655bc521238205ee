"""`vtcav layers`, as called by a person and by a program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vtcav_ray import cli
from vtcav_ray.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


def call(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, ["layers", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_table_of_the_quickstart_s_model() -> None:
    text = call(str(CONFIGS / "quickstart.yaml"), "--set", "model.checkpoint=untrained")
    lines = {line.split()[1]: line for line in text.splitlines() if line.startswith("│ ")}
    assert "early" in lines["backbone.layers.1"]
    assert "8x8x8x64" in lines["backbone.layers.1"]
    assert "32,768" in lines["backbone.layers.1"]
    assert "degenerate" in lines["cls_head.avg_pool"]
    assert "degenerate" not in lines["backbone.layers.3"]
    assert "UNTRAINED" in text


@pytest.mark.slow
def test_json_of_some_layers() -> None:
    quickstart = str(CONFIGS / "quickstart.yaml")
    found = json.loads(call(quickstart, "--json", "--layer", "late", "--layer", "head", "--set", "clips.frames=8"))
    assert found["input"] == [8, 64, 64]
    assert not found["untrained"]
    by_alias = {row["alias"]: row for row in found["layers"]}
    assert by_alias["late"]["shape"] == [4, 2, 2, 256]
    assert not by_alias["late"]["degenerate"]
    assert by_alias["head"]["degenerate"]
    with pytest.raises(ConfigError, match="Nearest: late"):
        call(quickstart, "--layer", "laet")


@pytest.mark.full
def test_full_size_swin_of_the_kinetics_config() -> None:
    settings = ("--set", "videos.uri=somewhere", "--set", "clips.frames=4")
    found = json.loads(call(str(CONFIGS / "kinetics.yaml"), "--json", "--layer", "early", *settings))
    assert found["untrained"]
    assert found["layers"][0]["shape"] == [2, 28, 28, 192]

"""`vtcav init` writes a valid config with the given values, and never overwrites a file by accident."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from vtcav_ray import cli
from vtcav_ray.config.loading import load_config, parse_config
from vtcav_ray.config.template import TEMPLATE, write_config
from vtcav_ray.errors import ConfigError

WANTED = {"videos": "s3://my bucket/{videos}: all", "weights": "w.pt", "model_config": "m.py", "checkpoint": "c.pth"}


def test_what_is_written_is_valid_and_says_what_was_asked(tmp_path: Path) -> None:
    path = write_config(str(tmp_path / "mine.yaml"), **WANTED, out=None, force=False)
    config = load_config(str(path))
    assert config.name == "mine"
    assert config.run_url == "runs/mine"
    assert config.videos.uri == WANTED["videos"]
    assert (config.tracks.weights, config.model.config, config.model.checkpoint) == ("w.pt", "m.py", "c.pth")


def test_what_is_commented_out_is_valid_as_well(tmp_path: Path) -> None:
    """Each example works after its `# ` is removed."""
    path = write_config(str(tmp_path / "mine.yaml"), **WANTED, out=None, force=False)
    lines = path.read_text(encoding="utf-8").splitlines()
    example = re.compile(r"^(\s+)# (\w+: |concepts:|  - )(.*)$")
    opened = [example.sub(r"\1\2\3", line) for line in lines]
    assert len([1 for a, b in zip(lines, opened, strict=True) if a != b]) >= 8
    opened = [line for line in opened if not line.startswith("  concepts: auto")]
    data = yaml.safe_load("\n".join(opened))
    config = parse_config(data)
    assert config.resources.rates.gpu_hour == 2.5
    assert not isinstance(config.clips.concepts, str)
    assert config.clips.concepts[0].controls == ("frozen", "reversed")


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="--force"):
        write_config(str(path), **WANTED, out=None, force=False)
    assert path.read_text() == "mine"
    result = CliRunner().invoke(cli.app, ["init", str(path), "--force", "--out", "s3://b/run"])
    assert result.exit_code == 0, result.output
    assert load_config(str(path)).run_url == "s3://b/run"


def test_the_template_names_every_section() -> None:
    data = yaml.safe_load(
        TEMPLATE.format(file="f", name="n", out="o", videos="v", weights="w", model_config="m", checkpoint="c")
    )
    assert {"videos", "tracks", "clips", "model", "activations", "cavs", "scores", "resources"} <= set(data)

"""`vtcav init` writes a valid config with the given values, and never overwrites a file by accident."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tests.helpers.class_folders import class_folders
from vtcav_ray import cli
from vtcav_ray.config.loading import load_config, parse_config
from vtcav_ray.config.template import TEMPLATE, write_config
from vtcav_ray.errors import ConfigError
from vtcav_ray.planning.dry_run import check

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
    assert data["scores"]["effect"] == "first_order"  # `patch` excludes the choices of labels
    config = parse_config(data)
    labels = {name: data["clips"].pop(name) for name in ("random_labels", "concept_labels")}
    assert labels == {"random_labels": "matched", "concept_labels": "other"}
    assert parse_config({**data, "scores": {"effect": "patch"}}).scores.effect == "patch"
    assert config.resources.rates.gpu_hour == 2.5
    assert not isinstance(config.clips.concepts, str)
    assert config.clips.concepts[0].controls == ("frozen", "reversed")


def test_every_line_has_a_comment(tmp_path: Path) -> None:
    """A line is a comment, or ends with one that YAML takes for one."""
    found = ["30 videos: lift 10, put_down 20", "fps: 30"]
    path = write_config(str(tmp_path / "mine.yaml"), **WANTED, out=None, force=False, found=found)
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) > 50
    comment = re.compile(r"(^|\s)#\s+\S")
    assert [line for line in lines if not comment.search(line)] == []
    bare = "\n".join(re.sub(r"(^|\s+)#\s.*$", "", line) for line in lines)
    assert parse_config(yaml.safe_load(bare)) == load_config(str(path)).model_copy(update={"out": "runs/mine"})


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
    fields = [name for _, name, _, _ in string.Formatter().parse(TEMPLATE) if name]
    data = yaml.safe_load(TEMPLATE.format(**dict.fromkeys(fields, "x") | {"found": "", "labels_line": "# none"}))
    assert {"videos", "tracks", "clips", "model", "activations", "cavs", "scores", "resources"} <= set(data)


def test_a_kinetics_model_gets_its_class_names(tmp_path: Path) -> None:
    kinetics = {**WANTED, "model_config": "recognition/swin/swin-tiny_kinetics400-rgb"}
    path = write_config(str(tmp_path / "mine.yaml"), **kinetics, out=None, force=False)
    assert load_config(str(path)).model.labels == "asset:kinetics400.txt"


def test_labels_can_not_leave_their_comment(tmp_path: Path) -> None:
    found = ["3 videos; 1 labels: a\nseed: 7 3"]
    path = write_config(str(tmp_path / "mine.yaml"), **WANTED, out=None, force=False, found=found)
    assert load_config(str(path)).seed == 0
    assert "# Found: 3 videos; 1 labels: a\N{REPLACEMENT CHARACTER}seed: 7 3" in path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_init_asks_the_folder_and_the_result_passes_the_preflight(tmp_path: Path) -> None:
    videos = class_folders(tmp_path, 24)
    (videos / "lift" / "broken.mp4").write_bytes(b"no video")
    words = ["init", str(tmp_path / "mine.yaml"), "--videos", str(videos), "--weights", "asset:detector.pt",
             "--model", "asset:recogniser.py", "--checkpoint", "asset:recogniser.pth",
             "--out", str(tmp_path / "run")]  # fmt: skip
    made = CliRunner().invoke(cli.app, words)
    assert made.exit_code == 0, made.output
    assert "25 videos; 4 labels" in made.output
    text = (tmp_path / "mine.yaml").read_text()
    assert "# Found: 25 videos; 4 labels: " in text
    assert "frames per second" in text
    config = load_config(str(tmp_path / "mine.yaml"))
    assert config.clips.interval == 1, "the world's videos have 16 to 32 frames"
    assert check(config).stops == ()


def test_init_names_labels_that_the_model_does_not_have(tmp_path: Path) -> None:
    videos = class_folders(tmp_path, 8)
    (videos / "lift").rename(videos / "yoga")
    words = ["init", str(tmp_path / "mine.yaml"), "--videos", str(videos), "--model", "asset:recogniser.py"]
    made = CliRunner().invoke(cli.app, words)
    assert made.exit_code == 0, made.output
    assert "no such class" in next(line for line in made.output.splitlines() if line.strip().startswith("yoga:"))
    assert isinstance(CliRunner().invoke(cli.app, [*words, "--force", "--videos", "none"]).exception, ConfigError)


def test_a_folder_of_concepts_gives_a_config_without_a_detector(tmp_path: Path) -> None:
    for name in ("spinning/a.mp4", "spinning/b.mp4", "spinning/c.mp4", "red/1.png", "red/2.png", "random/d.mp4"):
        (tmp_path / "c" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "c" / name).write_bytes(b"x")
    file = tmp_path / "mine.yaml"
    result = CliRunner().invoke(cli.app, ["init", str(file), "--concepts", str(tmp_path / "c")])
    assert result.exit_code == 0, result.output
    assert "red 2 images, spinning 3 clips; 1 random" in " ".join(result.output.split())
    config = load_config(str(file))
    assert not config.clips.need_tracks
    assert config.clips.given_urls == [(str(tmp_path / "c"), "clips.concepts.from")]
    assert config.clips.min_per_concept == 2
    assert "tracks" not in yaml.safe_load(file.read_text())
    absent = CliRunner().invoke(cli.app, ["init", str(tmp_path / "b.yaml"), "--concepts", str(tmp_path / "absent")])
    assert absent.exit_code != 0
    assert not (tmp_path / "b.yaml").exists()

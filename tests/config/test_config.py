from __future__ import annotations

import json
from pathlib import Path

import pytest

from vtcav_ray.config import Config
from vtcav_ray.config.loading import load_config, parse_config
from vtcav_ray.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_every_shipped_config_is_valid(path: Path) -> None:
    overrides = ["videos.uri=somewhere"] if "uri: null" in path.read_text() else []
    assert isinstance(load_config(str(path), overrides), Config)


@pytest.mark.parametrize(
    ("data", "fragments"),
    [
        ({"videos": {"uri": "x"}, "clips": {"fraems": 8}}, ["`clips.fraems`", "8", "did you mean `frames`"]),
        ({"videos": {"uri": "x"}, "scors": {}}, ["`scors`", "did you mean `scores`"]),
        (
            {"videos": {"uri": "x"}, "clips": {"quality": {"max_gab": 2}}},
            ["`clips.quality.max_gab`", "did you mean `max_gap`"],
        ),
        (
            {"videos": {"uri": "x"}, "clips": {"concepts": [{"name": "cup", "objct": "cup"}]}},
            ["objct", "did you mean `object`"],
        ),
        ({"videos": {"uri": "x"}, "cavs": {"solver": "logit"}}, ["`cavs.solver`", "'logit'", "logistic", "pattern"]),
        ({"videos": {"uri": "x"}, "clips": {"frames": 0}}, ["`clips.frames`", "greater than or equal to 1"]),
        ({"videos": {"uri": "x"}, "scores": {"alpha": 0.7}}, ["`scores.alpha`", "0.7", "less than 0.5"]),
        ({"videos": {"uri": "x"}, "scores": {"gradients_at": "all"}}, ["scores.gradients_at", "activations.classes"]),
        (
            {"videos": {"uri": "x"}, "activations": {"layers": ["early@max"]}},
            ["`activations.layers`", "'early@max'", "'max' is none", "moving"],
        ),
        ({"videos": {"uri": "x"}, "activations": {"layers": ["late", "late"]}}, ["activations.layers", "twice: late"]),
        ({"videos": {"uri": "x"}, "activations": {"layers": ["auto", "late"]}}, ["activations.layers", "stands alone"]),
        ({"videos": {"uri": "x"}, "activations": {"layers": []}}, ["`activations.layers`", "at least 1"]),
        ({"videos": {}}, ["`videos`", "give `uri`"]),
        ({"videos": {"uri": "x", "world": {}}}, ["both `uri`"]),
        ({}, ["`videos`"]),
        ({"videos": {"uri": "x"}, "clips": {"concepts": [{"name": "a"}, {"name": "a"}]}}, ["unique", "a"]),
    ],
)
def test_a_wrong_config_names_key_value_and_fix(data: dict[str, object], fragments: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(data)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_overrides_are_yaml_and_make_their_sections(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("videos: {uri: x}\nclips: {frames: 8}\n")
    config = load_config(
        str(path), ["clips.frames=16", "cavs.solver=ridge", "activations.layers=[late]"], out=str(tmp_path / "o")
    )
    assert (config.clips.frames, config.cavs.solver, config.activations.layers) == (16, "ridge", ("late",))
    assert config.run_url == str(tmp_path / "o")


def test_layers_are_auto_unless_they_are_named() -> None:
    default = parse_config({"videos": {"uri": "x"}})
    assert default.activations.layers_are_auto
    assert parse_config(default.model_dump(mode="json")).activations == default.activations
    assert parse_config({"videos": {"uri": "x"}, "activations": {"layers": "auto"}}).activations == default.activations
    named = parse_config({"videos": {"uri": "x"}, "activations": {"layers": ["late"]}})
    assert not named.activations.layers_are_auto


@pytest.mark.parametrize("override", ["clips.frames", "=3", "clips.frames.deep=1", "clips.frames=[1"])
def test_a_wrong_override_is_named(tmp_path: Path, override: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("videos: {uri: x}\nclips: {frames: 8}\n")
    with pytest.raises(ConfigError, match="--set"):
        load_config(str(path), [override])


@pytest.mark.parametrize("text", ["- a list", "a: [1", "just words"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load_config(str(path))


def test_a_missing_config_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_config("nowhere.yaml")


def test_a_source_of_tracks_is_a_registered_name_or_with_a_format_a_file() -> None:
    given = parse_config({"videos": {"uri": "x"}, "tracks": {"source": "s3://b/gt", "format": "mot"}}).tracks
    assert (given.given, given.source) == (True, "s3://b/gt")
    named = parse_config({"videos": {"uri": "x"}, "tracks": {"source": "ultralytics"}}).tracks
    assert not named.given
    for tracks, why in (
        ({"source": "s3://b/gt"}, "`tracks.source` .*For a file or folder of tracks, also set `tracks.format`"),
        ({"format": "mot"}, "`tracks.format` needs `tracks.source`"),
        ({"source": "a", "format": "cvatt"}, "`tracks.format` .*Did you mean `cvat`"),
        ({"source": "sftp://b/gt", "format": "mot"}, "`tracks.source`: `sftp` URLs are not opened"),
    ):
        with pytest.raises(ConfigError, match=why):
            parse_config({"videos": {"uri": "x"}, "tracks": tracks})


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_what_a_run_records_is_the_config(path: Path) -> None:
    config = load_config(str(path), ["videos.uri=somewhere"] if "uri: null" in path.read_text() else [])
    assert parse_config(json.loads(json.dumps(config.recorded()))) == config


def test_a_null_that_replaces_a_default_is_recorded_and_others_are_not() -> None:
    concepts = [{"name": "cup", "object": "cup"}, {"object": None, "name": "any", "kinds": ["spatial"]}]
    given = {
        "videos": {"uri": "v"},
        "clips": {"concepts": concepts, "quality": {"copy_distance": None}},
        "tracks": {"weights": "asset:detector.pt", "tracker_options": {"gmc_method": None, "track_buffer": 30}},
    }
    config = parse_config(given)
    recorded = config.recorded()
    assert recorded["clips"]["quality"]["copy_distance"] is None
    assert recorded["tracks"]["tracker_options"] == {"gmc_method": None, "track_buffer": 30}
    assert "out" not in recorded
    assert "classes" not in recorded["clips"]
    assert parse_config(json.loads(json.dumps(recorded))) == config

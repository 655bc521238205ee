"""Configs, runs and engines that are programs: they run only where the caller trusts them."""

from __future__ import annotations

import json
import logging
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml
from typer.testing import CliRunner

from tests.helpers.model_configs import asset_text
from vtcav_ray import cli
from vtcav_ray.config import ModelConfig, TracksConfig
from vtcav_ray.config.loading import load_config, parse_config
from vtcav_ray.errors import ConfigError
from vtcav_ray.models import describe, load_recogniser
from vtcav_ray.models.config_files import packaged_names
from vtcav_ray.runs.run import Run
from vtcav_ray.tracks.backends import load_backend
from vtcav_ray.tracks.programs import check_may_run
from vtcav_ray.watch import rerun


def program(folder: Path, canary: Path) -> Path:
    path = folder / "model.py"
    path.write_text(f"_ = __import__('os').makedirs({str(canary)!r}, exist_ok=True)\n{asset_text()}")
    return path


def test_a_program_on_this_machine_runs_and_the_log_says_so(
    tmp_path: Path, canary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = program(tmp_path, canary)
    with caplog.at_level(logging.INFO, logger="vtcav_ray"):
        describe(ModelConfig(config=str(path), checkpoint="untrained"))
    assert canary.exists()
    assert "is a program, and is run" in caplog.text


def test_a_program_on_a_url_runs_only_where_it_is_trusted(tmp_path: Path, canary: Path) -> None:
    with fsspec.open("memory://hostile/model.py", "w") as file:
        file.write(program(tmp_path, canary).read_text())
    config = ModelConfig(config="memory://hostile/model.py", checkpoint="untrained")
    for use in (describe, lambda c: load_recogniser(c, "cpu")):
        with pytest.raises(ConfigError, match="--trust-code"):
            use(config)
    assert not canary.exists()
    for copied in (config.trusting("anywhere"), pickle.loads(pickle.dumps(config.trusting("anywhere")))):
        assert describe(copied.model_copy(update={"checkpoint": "untrained"})).class_names
    assert canary.exists()


@pytest.mark.parametrize("key", ["code", "_code", "trust_code", "trust"])
def test_no_file_can_say_that_it_is_trusted(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        parse_config({"videos": {"uri": "v"}, "model": {key: "anywhere"}})
    assert parse_config({"videos": {"uri": "v"}}).model.code == "here"
    assert "code" not in parse_config({"videos": {"uri": "v"}}).trusting("anywhere").model.model_dump()


def foreign_run(folder: Path, config: str, weights: str = "asset:detector.pt") -> str:
    """Write a run folder as an attacker could."""
    folder.mkdir()
    model = {"config": config, "checkpoint": "untrained"}
    record = {"config": {"videos": {"uri": "v"}, "model": model, "tracks": {"weights": weights}}, "keys": {},
              "status": "done", "warnings": []}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    return str(folder)


def test_a_program_that_a_runs_record_names_is_not_run(tmp_path: Path, canary: Path) -> None:
    path = program(tmp_path, canary)
    run = foreign_run(tmp_path / "run", str(path))
    configs = [Run(run).config, rerun.reopened(run)[1], rerun.reopened(run, ["seed=3"])[1]]
    configs.append(rerun.with_checkpoint(configs[1], "untrained", str(tmp_path / "out")))
    for config in configs:
        for use in (describe, lambda c: load_recogniser(c, "cpu")):
            with pytest.raises(ConfigError, match=r"run\.json.*--trust-code"):
                use(config.model)
    assert not canary.exists()
    # A program that the caller names or trusts runs.
    describe(rerun.reopened(run, [f"model.config={path}"])[1].model)
    assert canary.exists()
    canary.rmdir()
    describe(rerun.reopened(run, trust_code=True)[1].model)
    assert canary.exists()
    # The package's own configs are not foreign programs.
    packaged = foreign_run(tmp_path / "other", "asset:recogniser.py")
    assert describe(rerun.reopened(packaged)[1].model).class_names


def test_a_file_of_a_packaged_name_in_the_working_directory_is_not_taken_for_the_packaged_one(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = next(name for name in packaged_names() if "swin-tiny" in name).rsplit("/", 1)[-1] + ".py"
    program(tmp_path, canary).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    run = foreign_run(tmp_path / "run", name)
    with pytest.raises(ConfigError, match="--trust-code"):
        describe(Run(run).config.model)
    assert not canary.exists()


def test_an_engine_is_a_program_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", types.ModuleType("tensorrt"))
    import torch

    for config in (TracksConfig(weights="memory://d.engine"), TracksConfig(weights="d.engine").trusting("nowhere")):
        with pytest.raises(ConfigError, match="--trust-code"):
            load_backend(config, torch.device("cuda"))


def test_an_encoder_that_a_runs_record_names_is_not_run(tmp_path: Path) -> None:
    """Nor when the caller names other weights: these don't make the encoder of run.json the caller's."""
    run = foreign_run(tmp_path / "run", "asset:recogniser.py", "w.pt")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["config"]["tracks"] |= {"vocabulary": ["cup"], "text_encoder": "e.ts"}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))

    def may_run(*overrides: str, trust_code: bool = False) -> bool:
        tracks = rerun.reopened(run, overrides, trust_code=trust_code)[1].tracks
        try:
            check_may_run(tracks, "tracks.text_encoder", tracks.text_encoder or "", "a program", "weights")
        except ConfigError:
            return False
        return True

    assert not may_run()
    assert not may_run("tracks.weights=mine.pt")
    assert may_run("tracks.text_encoder=mine.ts")
    assert may_run(trust_code=True)
    record["config"]["tracks"]["weights"] = "d.engine"
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    assert not may_run("tracks.text_encoder=mine.ts")
    assert may_run("tracks.text_encoder=mine.ts", "tracks.weights=mine.engine")


FROM_CONFIG = {
    "run": [],
    "run --dry-run": ["--dry-run"],
    "plan": [],
    "layers": [],
    "gradcam": [],
    "watch": ["--once", "--checkpoints", "x/*.pth"],
}


@pytest.mark.parametrize("command", FROM_CONFIG)
@pytest.mark.parametrize("trusted", [True, False])
def test_every_command_on_a_config_hands_the_option_on(
    command: str, trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def load(*arguments: Any, **named: Any) -> Any:
        seen.append(load_config(*arguments, **named).model.code)
        raise ConfigError("seen")

    # This module first: imported later, it would keep the stand-in.
    monkeypatch.setattr("vtcav_ray.cli.gradcam.load_config", load)
    monkeypatch.setattr("vtcav_ray.config.loading.load_config", load)
    (tmp_path / "c.yaml").write_text("videos: {uri: v}\n")
    arguments = [command.split()[0], str(tmp_path / "c.yaml"), *FROM_CONFIG[command], *["--trust-code"] * trusted]
    reported = CliRunner().invoke(cli.app, arguments)
    assert isinstance(reported.exception, ConfigError), reported.output
    assert seen == ["anywhere" if trusted else "here"]


FROM_RUN = {"rerun": ["--checkpoint", "untrained"], "retry-failed": [], "intervene": [], "patch": [], "maps": []}


@pytest.mark.parametrize("command", FROM_RUN)
@pytest.mark.parametrize("trusted", [True, False])
def test_every_command_on_a_run_hands_the_option_on(
    command: str, trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def stop(*_: Any, trust_code: bool, **__: Any) -> Any:
        seen.append(trust_code)
        raise ConfigError("seen")

    monkeypatch.setattr("vtcav_ray.watch.rerun.reopened", stop)
    monkeypatch.setattr("vtcav_ray.intervene.run.intervene_run", stop)
    run = foreign_run(tmp_path / "run", "x.py")
    reported = CliRunner().invoke(cli.app, [command, run, *FROM_RUN[command], *["--trust-code"] * trusted])
    assert isinstance(reported.exception, ConfigError), reported.output
    assert seen == [trusted]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["layers", "plan"])
def test_commands_refuse_a_program_on_a_url(command: str, tmp_path: Path, canary: Path) -> None:
    with fsspec.open("memory://hostile/model.py", "w") as file:
        file.write(program(tmp_path, canary).read_text())
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"x")
    data = {
        "videos": {"uri": str(tmp_path / "videos")},
        "model": {"config": "memory://hostile/model.py", "checkpoint": "untrained"},
        "out": str(tmp_path / "out"),
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(data))
    reported = CliRunner().invoke(cli.app, [command, str(tmp_path / "c.yaml")])
    assert isinstance(reported.exception, ConfigError), reported.output
    assert "--trust-code" in str(reported.exception)
    assert not canary.exists()
    if command == "layers":
        trusted = CliRunner().invoke(cli.app, ["layers", str(tmp_path / "c.yaml"), "--trust-code", "--layer", "late"])
        assert trusted.exit_code == 0, trusted.output
        assert canary.exists()

"""An error on the command line is one paragraph that names the cause, with exit status 2 or 3."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vtcav_ray import cli, pipeline
from vtcav_ray.store import folder as folder_module
from vtcav_ray.store.folder import Folder
from vtcav_ray.watch import rerun
from vtcav_ray.world import write

QUICKSTART = str(Path(__file__).parents[2] / "configs" / "quickstart.yaml")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command's working folder, with files that each have one error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")  # typer does not break the lines of its box
    (tmp_path / "broken.yaml").write_text("videos: {uri: a: b\n  - c")
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    (tmp_path / "two.png").write_bytes(b"\x89PNG")
    (tmp_path / "page").mkdir()
    Folder("other").write_json("world.json", {"recipe": {"format": 1}, "summary": {}})
    begun = Folder("begun")
    begun.write_json("run.json", {"config": {"name": "x", "videos": {"uri": "v"}}, "keys": {"videos": "k"}})
    return tmp_path


def run(name: str, *options: str) -> list[str]:
    return ["run", name, "--out", "out", *options]


CASES = [
    # (arguments, what the message names)
    (run("absent.yaml"), "absent.yaml"),
    (run("broken.yaml"), "broken.yaml"),
    (run("list.yaml"), "list.yaml"),
    (run("binary.yaml"), "binary.yaml"),
    (run(QUICKSTART, "--set", "clips.frams=8"), "frams"),
    (run(QUICKSTART, "--set", "clips.frames"), "clips.frames"),
    (run(QUICKSTART, "--set", "clips.frames=many"), "clips.frames"),
    (run(QUICKSTART, "--set", "clips.frames=-1"), "clips.frames"),
    (run(QUICKSTART, "--set", "seed.x=1"), "seed"),
    (run(QUICKSTART, "--set", "clips.size={"), "clips.size"),
    (run(QUICKSTART, "--set", "cavs.solver=magic"), "cavs.solver"),
    (run(QUICKSTART, "--set", "scores.correction=hopeful"), "scores.correction"),
    (run(QUICKSTART, "--set", "activations.projection=sketch:none"), "projection"),
    (run(QUICKSTART, "--until", "nowhere"), "nowhere"),
    (run(QUICKSTART, "--until", "clpis", "--dry-run"), "clpis"),
    (run(QUICKSTART, "--set", "seed=-1"), "seed"),
    (run(QUICKSTART, "--set", "videos.world.seed=-1"), "videos.world.seed"),
    (run(QUICKSTART, "--no-such-option"), "--no-such-option"),
    (run(QUICKSTART, "--set", "videos.uri=page"), "--set videos.world=null"),
    (["plan", "absent.yaml"], "absent.yaml"),
    (["plan", QUICKSTART, "--rate", "gpu=free"], "gpu=free"),
    (["plan", QUICKSTART, "--rate", "gpus"], "gpus"),
    (["table", "absent", "videos"], "absent"),
    (["table", "begun", "vidoes"], "vidoes"),
    (["table", "begun", "scores"], "scores"),
    (["table", "begun", "gradcam"], "gradcam"),
    (["table", "nonsense://x/y", "videos"], "nonsense"),
    (["table", "s3://[x", "scores"], "s3://[x"),
    (["status", "absent"], "absent"),
    (["status", "begun", "--storage-options", "absent.yaml"], "absent.yaml"),
    (["status", "begun", "--storage-options", "list.yaml"], "list.yaml"),
    (["status", "begun", "--storage-options", "binary.yaml"], "binary.yaml"),
    (["review", "absent"], "absent"),
    (["review", "begun", "--export", "foo://sheet.html"], "foo"),
    (["review", "begun", "--export", "http://127.0.0.1:1/sheet.html"], "http"),
    (["compare", "absent", "begun"], "absent"),
    (["export", "absent"], "absent"),
    (["export", "begun", "--log", "paper"], "paper"),
    (["export", "begun", "--to", "text.pt"], "text.pt"),
    (["export", "begun", "--figures", "gif"], "gif"),
    (["intervene", "absent"], "absent"),
    (["maps", "absent"], "absent"),
    (["maps", "begun"], "scores"),
    (["maps", "begun", "--cells", "some"], "--cells"),
    (["patch", "absent"], "absent"),
    (["patch", "begun"], "scores"),
    (["patch", "begun", "--cells", "some"], "--cells"),
    (["rerun", "absent", "--checkpoint", "x.pth"], "absent"),
    (["retry-failed", "absent"], "absent"),
    (["layers", "absent.yaml"], "absent.yaml"),
    (["layers", QUICKSTART, "--set", "model.checkpoint=absent.pth"], "absent.pth"),
    (["layers", QUICKSTART, "--set", "model.checkpoint=text.pt"], "text.pt"),
    (["layers", QUICKSTART, "--set", "model.config=absent.py"], "absent.py"),
    (["layers", QUICKSTART, "--set", "model.framework=caffe"], "caffe"),
    (["gradcam", QUICKSTART, "--set", "gradcam.modes=[sideways]"], "gradcam.modes"),
    (["world", "out", "--videos", "0"], "--videos"),
    (["world", "out", "--seed", "-1"], "--seed"),
    (["world", "other", "--videos", "9"], "other"),
    (["world", "text.pt"], "text.pt"),
    (["world", "ssh://host/world"], "ssh"),
    (["nonsense"], "nonsense"),
]

# Importing torch and building a model takes seconds.
PARAMETERS = [pytest.param(*case, marks=pytest.mark.slow if "model." in case[0][-1] else ()) for case in CASES]


@pytest.mark.parametrize(("arguments", "named"), PARAMETERS, ids=[" ".join(arguments)[-40:] for arguments, _ in CASES])
def test_every_error_is_one_paragraph_that_names_the_thing(
    arguments: list[str], named: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["vtcav", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    output, said = capfd.readouterr()
    assert stopped.value.code in (2, 3), said
    assert "Traceback" not in output + said
    assert named in said
    paragraphs = [part for part in said.strip().split("\n\n") if part.strip()]
    assert len(paragraphs) == 1, said
    assert len(said.split()) >= 6, "a message with a mend has more words than the name"


def main(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run the command; return the exit status and stderr."""
    monkeypatch.setattr(sys, "argv", ["vtcav", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    output, said = capfd.readouterr()
    assert "Traceback" not in output + said
    return int(stopped.value.code or 0), said


@pytest.mark.parametrize(
    "arguments",
    [["status", "s3://b/run"], run(QUICKSTART, "--dry-run"), run(QUICKSTART, "--limit", "1"), ["plan", QUICKSTART]],
    ids=lambda arguments: arguments[0] + arguments[-1],
)
def test_a_storage_that_is_down_is_reported_by_every_command(
    arguments: list[str], place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def down(url: str, options: object) -> None:
        raise ConnectionError(f"{url} could not be reached for 120 s")

    monkeypatch.setattr(folder_module, "open_url", down)
    monkeypatch.setattr(write, "open_url", down)
    status, said = main(arguments, monkeypatch, capfd)
    assert (status, said.count("could not be reached")) == (3, 1)


def test_ctrl_c_says_how_to_go_on_and_no_secret(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run", interrupted)
    secrets = ["out_storage_options.secret=HUNTER2", "model={storage_options: {token: HUNTER2}}"]
    options = [word for secret in secrets for word in ("--set", secret)]
    status, said = main(run(QUICKSTART, *options, "--set", "clips.frames=8"), monkeypatch, capfd)
    assert status == 130
    assert "HUNTER2" not in said
    for part in ("vtcav run", "--set clips.frames=8", "--set out_storage_options.secret=...", "--set model=..."):
        assert part in said
    # For the other commands, typer itself would print nothing.
    monkeypatch.setattr(rerun, "rerun", interrupted)
    status, said = main(["rerun", "begun", "--checkpoint", "x.pth"], monkeypatch, capfd)
    assert status == 130
    assert "the same command, without --fresh, resumes" in said


@pytest.mark.slow
def test_a_dry_run_that_would_stop_names_the_class_and_those_of_the_model(place: Path) -> None:
    result = CliRunner().invoke(cli.app, run(QUICKSTART, "--set", "clips.classes=[lift, yoga]", "--dry-run"))
    assert result.exit_code == 2
    assert "has no class 'yoga'. It has: lift, put_down" in result.stdout


def test_a_pattern_that_no_checkpoint_matches_is_named(place: Path) -> None:
    result = CliRunner().invoke(cli.app, ["watch", QUICKSTART, "--checkpoints", "none-*.pth", "--once"])
    assert "No checkpoint matches none-*.pth" in result.output

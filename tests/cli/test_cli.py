"""The command as a user sees it: exit statuses, and errors that name the fix."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

import vtcav_ray
from vtcav_ray import cli, tables
from vtcav_ray.cli import application
from vtcav_ray.cli.tables import print_table
from vtcav_ray.rows import Failure
from vtcav_ray.runs.run import Run
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder


@pytest.fixture
def finished_run(tmp_path: Path) -> str:
    """A run folder with a videos stage, as the pipeline writes it."""
    folder = Folder(str(tmp_path / "run"))
    videos = pa.Table.from_pylist(
        [{"video_id": "a,1", "uri": "file:///a", "label": "lift [x]"}, {"video_id": "b", "uri": "file:///b"}],
        schema=tables.VIDEOS,
    )
    output = stage_folder(folder, "videos", "k1")
    output.commit("all", ShardOutput({"videos": videos}, [Failure(uri="c", error_kind="missing", message="gone")]))
    output.finish({}, {"warnings": []})
    folder.write_json("run.json", {"config": {"videos": {"uri": "x"}}, "keys": {"videos": "k1"}})
    return folder.url


def run_main(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["vtcav", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out + captured.err


def test_version() -> None:
    result = CliRunner().invoke(cli.app, ["--version"])
    assert (result.exit_code, result.output.strip()) == (0, f"vtcav-ray {vtcav_ray.__version__}")


@pytest.mark.parametrize("form", ["csv", "json", "jsonl", "parquet"])
def test_tables_come_whole_in_every_format(
    finished_run: str, form: str, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr("sys.argv", ["vtcav", "table", finished_run, "videos", "--format", form])
    with pytest.raises(SystemExit):
        cli.main()
    data = capfdbinary.readouterr().out
    if form == "csv":
        read = pyarrow.csv.read_csv(pa.py_buffer(data)).to_pylist()
    elif form == "json":
        read = json.loads(data)
    elif form == "jsonl":
        read = [json.loads(line) for line in data.splitlines()]
    else:
        read = pq.read_table(pa.py_buffer(data)).to_pylist()
    assert [row["video_id"] for row in read] == ["a,1", "b"]
    assert read[0]["label"] == "lift [x]"
    assert tuple(read[0]) == tuple(tables.VIDEOS.names)


def test_a_table_for_people_shows_markup_as_it_is(finished_run: str) -> None:
    result = CliRunner().invoke(cli.app, ["table", finished_run, "videos"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "lift [x]" in result.output


def test_a_name_can_neither_break_a_table_nor_steer_the_terminal() -> None:
    names = [r"x\[/b]y", "[/]", "\x1b[31mred\x1b]0;title\x07", "a:car:b"]
    for width in (200, 10):
        console = Console(width=width, file=io.StringIO())
        print_table(pa.table({"name": names}), "table", console, sys.stdout.buffer)
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert all(name in shown for name in (r"x\[/b]y", "[/]", "�[31mred", "a:car:b"))
        assert "\x1b" not in shown


def test_folders_are_printed_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "exp[new]").mkdir()
    result = CliRunner().invoke(cli.app, ["init", str(tmp_path / "exp[new]" / "c.yaml")])
    assert str(tmp_path / "exp[new]" / "c.yaml") in result.output


def test_a_limit_reads_no_more_shards_than_it_needs(finished_run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Run(finished_run).stage("videos")
    for i in range(4):
        row = {"video_id": f"later {i}", "uri": f"file:///{i}"}
        output.commit(f"b{i}", ShardOutput({"videos": pa.Table.from_pylist([row], schema=tables.VIDEOS)}))
    output.finish({}, {})
    read: list[str] = []
    whole = StageFolder.read_file
    monkeypatch.setattr(
        StageFolder, "read_file", lambda self, path, *rest: read.append(path) or whole(self, path, *rest)
    )

    def first(limit: int) -> list[str]:
        read.clear()
        options = ["--format", "jsonl", "--limit", str(limit)]
        result = CliRunner().invoke(cli.app, ["table", finished_run, "videos", *options])
        return [json.loads(line)["video_id"] for line in result.output.splitlines()]

    assert (first(1), len(read)) == (["a,1"], 1)
    assert (first(3), len(read)) == (["a,1", "b", "later 0"], 2)
    assert len(first(100)) == 6


def test_wide_tables_are_not_squeezed(finished_run: str) -> None:
    result = CliRunner().invoke(cli.app, ["table", finished_run, "videos"], env={"COLUMNS": "40"})
    for name in tables.VIDEOS.names:
        assert name in result.output


def test_json_has_null_where_there_is_no_figure(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    print_table(pa.table({"p": [float("nan"), 0.5]}), "json", application.out, sys.stdout.buffer)
    assert json.loads(capfdbinary.readouterr().out) == [{"p": None}, {"p": 0.5}]
    print_table(pa.table({"p": pa.array([], pa.float64())}), "json", application.out, sys.stdout.buffer)
    assert json.loads(capfdbinary.readouterr().out) == []


def test_failures_are_a_table(finished_run: str) -> None:
    result = CliRunner().invoke(cli.app, ["table", finished_run, "failures", "--format", "json"])
    (row,) = json.loads(result.output)
    assert (row["stage"], row["uri"], row["error_kind"]) == ("videos", "c", "missing")


@pytest.mark.parametrize(
    ("arguments", "status", "fragment"),
    [
        (["run", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["table", "no/such/run", "videos"], 2, "vtcav run CONFIG"),
        (["table", "RUN", "vidos"], 2, "There are: videos"),
        (["table", "RUN", "tracks"], 2, "has not reached"),
        (["table", "RUN", "videos", "--format", "xml"], 2, "csv"),
        (["nonsense"], 2, "nonsense"),
        (["world", "out", "--videos", "0"], 2, "8"),
    ],
)
def test_errors_have_a_status_and_a_fix(
    arguments: list[str],
    status: int,
    fragment: str,
    finished_run: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [finished_run if a == "RUN" else a for a in arguments]
    code, text = run_main(arguments, monkeypatch, capsys)
    assert code == status
    assert fragment in text
    assert "Traceback" not in text


def test_a_wrong_key_on_the_command_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("videos: {world: {}}\n")
    code, text = run_main(["run", str(config), "--set", "clips.fraems=3"], monkeypatch, capsys)
    assert code == 2
    assert "did you mean `frames`" in text

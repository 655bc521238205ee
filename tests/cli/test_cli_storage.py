"""Commands on a run whose storage needs options: the options come from a file and reach everything that is opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from vtcav_ray import cli, pipeline, tables
from vtcav_ray.cli import review as review_command
from vtcav_ray.errors import ConfigError, VtcavError
from vtcav_ray.rows import Failure
from vtcav_ray.runs.run import Run
from vtcav_ray.store import access
from vtcav_ray.store import folder as folder_module
from vtcav_ray.store.access import AccessError
from vtcav_ray.store.commits import ShardOutput, stage_folder
from vtcav_ray.store.folder import Folder

SECRET = {"secret": "right"}
RUN, RERUN = "memory://locked/run", "memory://locked/run/checkpoints/next"


def open_locked(url: str, options: Any = None) -> Any:
    """Storage that opens only with the right secret."""
    if url.startswith("memory://") and (options or {}).get("secret") != "right":
        raise AccessError(f"{url}: access is refused.")
    return access.open_url(url)


@pytest.fixture
def options_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A run with a failure and a rerun of it, both locked, and a file with the secret."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folder_module, "open_url", open_locked)
    monkeypatch.setattr(review_command, "open_url", open_locked)
    folder = Folder(RUN, SECRET)
    videos = stage_folder(folder, "videos", "k")
    rows = pa.Table.from_pylist([{"video_id": "a", "uri": "a.mp4"}], schema=tables.VIDEOS)
    videos.commit("all", ShardOutput({"videos": rows}, [Failure(uri="b.mp4", error_kind="missing", message="gone")]))
    videos.finish({}, {"warnings": []})
    record = {"config": {"videos": {"uri": "x"}}, "keys": {"videos": "k"}, "status": "done"}
    folder.write_json("run.json", record)
    Folder(RERUN, SECRET).write_json("run.json", {**record, "base": "../.."})
    file = tmp_path / "options.yaml"
    file.write_text('{"secret": "right"}')
    yield str(file)
    folder.remove()


COMMANDS = {  # command -> expected error once the storage is open; None: success
    f"status {RUN}": None,
    f"status {RERUN}": None,
    f"table {RUN} videos": None,
    f"table {RERUN} videos": None,  # from the base run
    f"review {RUN} --export sheet.html": ConfigError,  # this run has no clips and no scores
    f"compare {RUN} {RERUN}": ConfigError,
    f"export {RUN}": ConfigError,
    f"intervene {RUN}": ConfigError,
    f"maps {RUN}": ConfigError,
    f"patch {RUN}": ConfigError,
    f"rerun {RUN} --checkpoint absent.pth": ConfigError,
}


def test_commands_on_a_run_take_the_options_of_its_storage(options_file: str) -> None:
    for words, expected in COMMANDS.items():
        refused = CliRunner().invoke(cli.app, words.split())
        assert isinstance(refused.exception, AccessError), words
        result = CliRunner().invoke(cli.app, [*words.split(), "--storage-options", options_file])
        problem = result.exception if isinstance(result.exception, VtcavError) else None
        assert type(problem) is (expected or type(None)), (words, result.output, result.exception)


@pytest.mark.parametrize("given", ["--storage-options=options.yaml", "--set=out_storage_options.secret=right"])
def test_a_retry_of_a_rerun_opens_all_of_it_with_the_options(
    given: str, options_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def run(config: Any, progress: object, *, base: Run, **options: bool) -> Run:
        asked.extend([config.out_storage_options, base.folder.storage_options])
        return Run(config.run_url, config.out_storage_options)

    monkeypatch.setattr(pipeline, "run", run)
    result = CliRunner().invoke(cli.app, ["retry-failed", RERUN, given])
    assert "1 failures before, 1 now" in result.output, result.exception
    assert asked == [SECRET, SECRET]
    assert result.exit_code == 4  # one of two failed

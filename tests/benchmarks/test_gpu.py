"""`benchmarks/gpu.py` at its tiny size on a CPU: every part finishes, and its checks can fail."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from tests.helpers.small_runs import without_ray
from vtcav_ray import cli
from vtcav_ray.models.config_files import read_config
from vtcav_ray.store.vectors import vector_array

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CRASHES = "import sys; print('[stage] half: 1'); sys.exit('it broke')"
HANGS = "import time; print('[stage] half: 1', flush=True); time.sleep(600)"


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def part_of(name: str, out: Path, **options: Any) -> Any:
    from gpu_parts.part import Options, Part

    return Part(name, Options(**{"device": "cpu", "tiny": True, "seconds": 300.0, "out": out} | options))


FULL_SIZE = [pytest.param(name, False, marks=pytest.mark.full) for name in ("networks", "stage", "tracks", "cavs")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "small"),
    [("environment", False), ("stage", True), *FULL_SIZE],
)
def test_a_part(name: str, small: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`small`: with the packaged Video Swin of 1.5 M parameters, for 400 classes, in place of Video Swin-T."""
    import extraction_core

    if small:
        parsed = read_config("asset:recogniser.py")
        parsed.model["cls_head"]["num_classes"] = 400
        model = tmp_path / "model.json"
        model.write_text(json.dumps({"model": parsed.model, "test_pipeline": parsed.pipeline}))
        monkeypatch.setitem(extraction_core.MODELS, "swin-tiny", str(model))
    import importlib

    part = part_of(name, tmp_path)
    importlib.import_module(f"gpu_parts.{name}").run(part)
    assert part.errors == {}
    assert part.skipped == []
    found = json.loads(part.path.read_text(encoding="utf-8"))
    assert found["rows"] == part.rows
    for row in part.rows:
        assert math.isfinite(row["value"]), row
        assert row["value"] > 0 or "difference" in row["figure"], row
        # Agreement of figures is judged on every device, speed only on a GPU.
        assert row["met"] in (True, None), row
    judged = sum(row["met"] is True for row in part.rows)
    assert judged == {"environment": 0, "networks": 0, "stage": 0, "tracks": 1, "cavs": 7}[name]
    wanted = {
        "environment": "bf16",
        "networks": "times",
        "stage": "stage of the model loop",
        "tracks": "over track()",
        "cavs": "CAVs",
    }
    assert any(wanted[name] in row["figure"] or wanted[name] == row["unit"] for row in part.rows)


@pytest.mark.full
def test_the_part_that_runs_everything_twice(tmp_path: Path) -> None:
    """Run the command itself in a separate process, with Ray."""
    import gpu

    assert gpu.main(["--tiny", "--device", "cpu", "--only", "run", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["parts"]["run"]
    check_both_runs(found)
    assert "parity, scores" in (tmp_path / "gpu.md").read_text(encoding="utf-8")


@pytest.mark.full
def test_the_part_that_runs_everything_twice_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same part and commands, without Ray and new processes."""
    import gpu
    from gpu_parts import run

    def here(command: list[str], **_: object) -> SimpleNamespace:
        assert command[1:3] == ["-m", "vtcav_ray"]
        result = CliRunner().invoke(cli.app, command[3:])
        return SimpleNamespace(returncode=result.exit_code, stdout=result.output, stderr=repr(result.exception))

    monkeypatch.setattr(run.subprocess, "run", here)
    part = part_of("run", tmp_path)
    with without_ray():
        run.run(part)
    assert part.errors == {}
    assert part.skipped == []
    check_both_runs(json.loads(part.path.read_text(encoding="utf-8")))
    assert "parity, scores" in gpu.as_markdown(gpu.merge(tmp_path, 1.0))


def check_both_runs(found: Mapping[str, Any]) -> None:
    parity = [row for row in found["rows"] if row["figure"].startswith("parity")]
    assert len(parity) == 8
    assert all(row["met"] for row in parity)
    stages = found["figures"]["run, one"]["by stage"]
    assert set(stages) == {"videos", "tracks", "clips", "activations", "cavs", "scores", "report"}
    again = found["figures"]["run, another batch size"]["by stage"]
    assert "activations" in again
    assert "tracks" not in again, "the clips are the first run's"


@pytest.mark.slow
@pytest.mark.parametrize(("script", "ended"), [(CRASHES, "exit status 1"), (HANGS, "ended after")])
def test_a_part_that_crashes_or_hangs_leaves_the_others(
    script: str, ended: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu

    (tmp_path / "gpu.py").write_text(
        f"import json, pathlib\nif 'cavs' in __import__('sys').argv:\n"
        f"    found = dict(part='cavs', state='done', errors={{}}, rows=[], skipped=[], figures={{}})\n"
        f"    pathlib.Path({str(tmp_path / 'out' / 'cavs.json')!r}).write_text(json.dumps(found))\n"
        f"else:\n    {script}\n"
    )
    monkeypatch.setattr(gpu, "HERE", tmp_path)
    monkeypatch.setattr(gpu, "GRACE_S", 0.0)
    arguments = ["--only", "stage", "--only", "cavs", "--seconds", "8", "--out", str(tmp_path / "out")]
    assert gpu.main(arguments) == 1
    found = json.loads((tmp_path / "out" / "gpu.json").read_text(encoding="utf-8"))["parts"]
    assert found["cavs"]["state"] == "done"
    assert found["stage"]["state"] == "failed"
    assert found["stage"]["errors"]["the part"].splitlines()[-1].startswith(ended)
    assert "half: 1" in found["stage"]["errors"]["the part"]


@pytest.mark.slow
def test_a_step_that_fails_or_has_no_time_is_written_down_and_the_next_has_its_turn(tmp_path: Path) -> None:
    part = part_of("stage", tmp_path, tiny=False, seconds=5.0)

    def fails() -> None:
        raise RuntimeError("no such kernel")

    assert not part.attempt("first", fails)
    assert not part.attempt("second", lambda: part.note("second", 1), needs=60)
    assert part.attempt("third", lambda: part.note("third", float("nan")))
    found = json.loads(part.path.read_text(encoding="utf-8"))
    assert "no such kernel" in found["errors"]["first"]
    assert found["skipped"] == ["second"]
    assert found["figures"]["third"] is None, "JSON has no NaN"
    assert "second" not in found["figures"]


def test_the_table_says_what_was_missed_and_what_failed(tmp_path: Path) -> None:
    import gpu
    from gpu_parts.part import Target

    part = part_of("stage", tmp_path, device="cuda", tiny=False)
    part.row("fast enough", 0.95, "", Target(0.9, speed=True))
    part.row("too slow", 0.5, "", Target(0.9, speed=True))
    part.row("too far off", 0.5, "", Target(0.1, at_least=False))
    part.row("not a number", float("nan"), "", Target(0.1))
    part.errors["a step"] = "Traceback\nRuntimeError: no such kernel"
    part.skipped.append("a long step")
    part.write()
    text = gpu.as_markdown(gpu.merge(tmp_path, 1.0))
    assert "| fast enough | 0.95  | >= 0.9 | yes |" in text
    assert "| too slow | 0.5  | >= 0.9 | **no** |" in text
    assert "| too far off | 0.5  | <= 0.1 | **no** |" in text
    assert "| not a number | -  | >= 0.1 | **no** |" in text
    assert "a step: RuntimeError: no such kernel" in text
    assert "no time for a long step" in text


KEYS = {"clip_id": "clip{}", "class": "lift", "concept": "cup", "against": "random", "negatives": "random#{}"}


class FakeRun(SimpleNamespace):
    """A stand-in for a run, with the tables that `gpu_parts.parity` reads."""

    def table(self, name: str, columns: list[str], **_: str) -> pa.Table:
        return self.tables[name].select(columns)


def tables_of_run(change: Mapping[str, Any]) -> FakeRun:
    """Make tables of a run; `change` alters them as the other device would."""
    rng = np.random.default_rng(0)
    found = {}
    for name in ("activations", "gradients", "cavs"):
        vectors = rng.standard_normal((6, 8)).astype(np.float32)
        vectors[2] += np.float32(change.get(name, 0.0)) * np.linalg.norm(vectors[2]) / np.sqrt(8)
        keys = {key: [text.format(i) for i in range(6)] for key, text in KEYS.items()}
        found[name] = pa.table({**keys, "vector": vector_array(vectors)})
    score = {"tcav_score": 0.5, "effect": 1.0, "null_sd": 0.2, "p": 0.01, "significant": True}
    cell = {"class": "lift", "layer": "late", "concept": "cup", "against": "random"}
    found["scores"] = pa.Table.from_pylist([cell | score | change.get("scores", {})])
    boxes = [[[10.0, 10.0, 30.0, 30.0]] * 4, [[40.0, 10.0, 60.0, 30.0]] * 4]
    boxes = [[[x + change.get("tracks", 0.0) for x in box] for box in track] for track in boxes]
    frames = [list(range(4))] * 2
    found["tracks"] = pa.table({"video_id": ["v", "v"], "label": ["cup", "cup"], "frames": frames, "boxes": boxes})
    config = SimpleNamespace(activations=SimpleNamespace(layers=("late",)), scores=SimpleNamespace(permutations=10_000))
    return FakeRun(tables=found, config=config)


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({}, ()),
        ({"activations": 1e-3, "gradients": 1e-3, "cavs": 1e-3, "tracks": 0.1}, ()),
        ({"activations": 2e-2}, ("activations",)),
        ({"gradients": 5e-2}, ("gradients",)),
        ({"cavs": 0.2}, ("cavs",)),
        ({"tracks": 2.0}, ("mean IoU",)),
        ({"tracks": 15.0}, ("share of boxes", "mean IoU")),
        ({"scores": {"tcav_score": 0.6}}, ("of a score",)),
        ({"scores": {"effect": 1.05}}, ("of an effect",)),
        ({"scores": {"p": 0.02}}, ("of p",)),
    ],
)
def test_parity_finds_what_is_beyond_its_tolerance(
    change: dict[str, Any], missed: tuple[str, ...], tmp_path: Path
) -> None:
    from gpu_parts import parity

    part, here, there = part_of("run", tmp_path), tables_of_run({}), tables_of_run(change)
    for compare in (parity.compare_tracks, parity.compare_vectors, parity.compare_scores):
        compare(part, there, here)
    found = [row["figure"] for row in part.rows if not row["met"]]
    assert len(part.rows) == 8
    assert len(found) == len(missed)
    assert all(word in figure for word, figure in zip(missed, found, strict=True)), found

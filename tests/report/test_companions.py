"""Pages beside the report: the report links to them and rewrites them, once a run has them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import report_factory as factory
from tests.helpers.report_factory import cell, report_data, table
from vtcav_ray import tables
from vtcav_ray.report import ReportData, build_report
from vtcav_ray.report.companions import COMPANIONS, Companion, companions
from vtcav_ray.report.stage import publish_report
from vtcav_ray.runs.run import Run
from vtcav_ray.store.commits import ShardOutput, stage_folder
from vtcav_ray.store.folder import Folder

LOADED = "import sys, vtcav_ray.{module}; print([n for n in sys.modules if n.startswith('vtcav_ray.gradcam')])"


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run complete up to the scores, with the report reached and a complete branch `gradcam` of its clips."""
    folder = Folder(str(tmp_path / "run"))
    outputs = {
        "clips": {"clips": tables.CLIPS.empty_table()},
        "cavs": {"cavs/layer=late": tables.cavs(4).empty_table()},
        "scores": {"scores": table([cell()])},
        "gradcam": {"gradcam": tables.GRADCAM.empty_table()},
    }
    for name, made in outputs.items():
        stage = stage_folder(folder, name, f"key-{name}")
        stage.commit("00000", ShardOutput(made))
        stage.finish({"stage": name}, {"warnings": [], "notes": {}, "seconds": 1.0, "versions": {}})
    keys = {name: f"key-{name}" for name in ("clips", "cavs", "scores", "report")}
    config = {"name": "small", "videos": {"uri": "videos"}, "activations": {"layers": ["late"]}}
    folder.write_json("run.json", {"config": config, "keys": keys, "status": "done", "warnings": [], "versions": {}})
    folder.write_json("gradcam.json", {"key": "key-gradcam", "inputs": {"clips": "key-clips"}})
    return Run(folder.url)


@pytest.fixture
def rewritten(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect URLs of the runs whose Grad-CAM page was rewritten."""
    calls: list[str] = []
    monkeypatch.setattr("vtcav_ray.gradcam.page.write_page", lambda run: calls.append(run.url))
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("module", ["report.stage", "pipeline"])
def test_nothing_loads_grad_cam_for_a_run_without_it(module: str) -> None:
    assert python(LOADED.format(module=module)) == "[]"


def test_grad_cam_is_found_by_its_stage_though_nobody_imported_it() -> None:
    code = (
        "from types import SimpleNamespace; from vtcav_ray.report.companions import companions; "
        "print([(s, c.page, c.title) for s, c in companions(SimpleNamespace(keys={'gradcam': 'k'}))])"
    )
    assert python(code) == "[('gradcam', 'gradcam.html', 'Grad-CAM')]"


def test_a_new_report_rewrites_the_grad_cam_page_and_an_unchanged_one_does_not(run: Run, rewritten: list[str]) -> None:
    publish_report(run)
    assert rewritten == [run.url]
    publish_report(run)
    assert rewritten == [run.url]
    run.folder.write_bytes("report.html", b"the page of another config's run")
    publish_report(run)
    assert rewritten == [run.url] * 2


def test_the_report_of_other_clips_leaves_the_grad_cam_page_alone(run: Run, rewritten: list[str]) -> None:
    run.folder.write_json("gradcam.json", {"key": "key-gradcam", "inputs": {"clips": "other"}})
    publish_report(Run(run.url))
    assert rewritten == []
    assert run.stage("report").folder.exists("report.html")


def test_the_report_links_to_a_page_that_exists(run: Run, rewritten: list[str]) -> None:
    assert ReportData.from_run(run).links == []
    run.folder.write_bytes("gradcam.html", b"a page")
    assert ReportData.from_run(run).links == [("gradcam.html", "Grad-CAM")]
    publish_report(run)
    assert run.stage("report").folder.exists("report-key-gradcam.html")
    assert b'<a href="gradcam.html">Grad-CAM</a>' in run.folder.read_bytes("report.html")
    assert rewritten == [run.url]


def test_a_companion_from_outside_is_one_entry(run: Run, monkeypatch: pytest.MonkeyPatch, rewritten: list[str]) -> None:
    calls: list[str] = []
    monkeypatch.setitem(COMPANIONS, "scores", Companion("mine.html", "Mine & yours", lambda run: calls.append(run.url)))
    run.folder.write_bytes("mine.html", b"a page")
    assert [stage for stage, _ in companions(run)] == ["gradcam", "scores"]
    publish_report(run)
    assert (calls, rewritten) == ([run.url], [run.url])
    assert '<a href="mine.html">Mine &amp; yours</a>' in run.folder.read_bytes("report.html").decode()


def test_links_are_escaped() -> None:
    html = build_report(report_data([cell()], links=[(factory.NASTY, factory.NASTY)]))
    assert "<script>alert" not in html

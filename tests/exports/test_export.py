"""Exported files can be read by the programs that they are for, and hold the run's figures."""

from __future__ import annotations

import csv
import importlib
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from vtcav_ray import cli, tables
from vtcav_ray.errors import ConfigError
from vtcav_ray.exports import export, latex
from vtcav_ray.exports.trackers import figures_of, log_run
from vtcav_ray.report.score_cells import read_cells
from vtcav_ray.runs.run import Run
from vtcav_ray.store.commits import ShardOutput, stage_folder
from vtcav_ray.store.folder import Folder

pa_rows = [
    ("lift", "cup_up/spatiotemporal", "late", 0.81, True, True),
    ("lift", "cup/spatial", "late", -0.02, False, True),
    ("lift", "cup/padding", "late", 0.5, False, False),
    ("put down & up", "cup_up/spatiotemporal", "late", -0.6, True, True),
    ("a$^$b", "cup$_$up/spatial", "late", 0.0, False, True),
    ("lift", "cup_up/spatiotemporal", "early", 0.01, False, True),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    import pyarrow as pa

    folder = Folder(str(tmp_path_factory.mktemp("run")))
    rows = [
        {
            "class": name, "concept": concept, "layer": layer, "kind": concept.rpartition("/")[2], "against": "random",
            "effect": effect, "ci_low": effect - 0.1, "ci_high": effect + 0.1, "share_of_margin": effect / 3,
            "null_sd": 0.05, "z": effect / 0.05, "p": 0.001, "q": 0.003, "tcav_score": 0.9,
            "tcav_null_mean": 0.5, "tcav_null_sd": 0.3, "significant": significant, "learnable": learnable,
            "n": 30, "R": 50, "degenerate": False, "decided_by": "effect", "model": "m@1", "note": "",
        }
        for name, concept, layer, effect, significant, learnable in pa_rows
    ]  # fmt: skip
    scores = stage_folder(folder, "scores", "k")
    scores.commit("final", ShardOutput({"scores": pa.Table.from_pylist(rows, schema=tables.SCORES)}))
    scores.finish({}, {"warnings": [], "notes": {}, "seconds": 1.0})
    config = {"name": "small", "videos": {"uri": "x"}, "activations": {"layers": ["early", "late"]}}
    folder.write_json("run.json", {"config": config, "keys": {"scores": "k"}})
    return Run(folder.url)


@pytest.fixture(scope="module")
def written(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The export with figures in one format."""
    place = str(tmp_path_factory.mktemp("export") / "paper")
    return {path.name: path for path in export(run, place, formats=["svg"])}


@pytest.mark.slow
def test_a_figure_a_class_and_a_layer_in_every_format(run: Run, tmp_path: Path) -> None:
    written = {path.name: path for path in export(run, str(tmp_path / "paper"))}
    names = ("effects-lift", "effects-put_down_up", "effects-a_b", "matrix-early", "matrix-late")
    assert {n for n in written if not n.startswith(("scores", "summary", "verdicts"))} == {
        f"{name}.{form}" for name in names for form in ("png", "svg", "pdf")
    }
    with Image.open(written["effects-lift.png"]) as image:
        assert image.info["dpi"][0] == pytest.approx(300, abs=1)
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 20
    assert written["effects-lift.pdf"].read_bytes().startswith(b"%PDF")


@pytest.mark.slow
def test_names_in_figures_are_text(written: dict[str, Path]) -> None:
    svg = ET.parse(written["effects-lift.svg"])
    text = " ".join("".join(node.itertext()) for node in svg.iter("{http://www.w3.org/2000/svg}text"))
    assert "cup_up/spatiotemporal" in text  # text, not outlines
    assert "a$^$b" in written["effects-a_b.svg"].read_text(encoding="utf-8")  # a name, not a formula
    assert {"matrix-early.svg", "matrix-late.svg"} <= written.keys()


@pytest.mark.slow
def test_the_same_run_gives_the_same_files(run: Run, written: dict[str, Path], tmp_path: Path) -> None:
    again = export(run, str(tmp_path), formats=["svg"], classes=["lift"])
    path = next(p for p in again if p.name == "effects-lift.svg")
    assert path.read_bytes() == written["effects-lift.svg"].read_bytes()


@pytest.mark.slow
def test_tables_hold_every_cell(written: dict[str, Path]) -> None:
    with written["scores.csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["class"], float(r["effect"])) for r in rows] == [(r[0], r[3]) for r in pa_rows]
    assert list(rows[0]) == list(tables.SCORES.names)


@pytest.mark.slow
def test_latex_has_the_significant_cells_with_names_escaped(written: dict[str, Path]) -> None:
    text = written["scores.tex"].read_text(encoding="utf-8")
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == 2
    assert body[0].startswith(r"lift & cup\_up/spatiotemporal & random & late & +0.81 & 27\,\% & [+0.71, +0.91]")
    assert r"put down \& up" in body[1]
    assert "$-$0.60" in body[1]
    assert latex.escape("50% #1_{x}~^\\") == r"50\% \#1\_\{x\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
    if shutil.which("pdflatex"):  # if TeX is installed, it must accept the files
        document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{text}\end{{document}}"
        folder = written["scores.tex"].parent
        (folder / "d.tex").write_text(document)
        subprocess.run(["pdflatex", "-interaction=batchmode", "-halt-on-error", "d.tex"], cwd=folder, check=True)


@pytest.mark.slow
def test_pandas_polars_and_duckdb_read_the_scores_as_they_lie(run: Run) -> None:
    import duckdb
    import pandas as pd
    import polars as pl

    files = f"{run.url}/scores/*/scores/*.parquet"
    want = [r[3] for r in pa_rows]
    assert pl.read_parquet(files)["effect"].to_list() == want
    [file] = Path(run.url).glob("scores/*/scores/*.parquet")
    assert pd.read_parquet(file)["effect"].tolist() == want
    query = f"SELECT count(*) FROM read_parquet('{files}') WHERE significant AND effect > 0"
    assert duckdb.sql(query).fetchall() == [(1,)]


def test_wrong_names_are_refused_with_the_right_ones(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="png, svg, pdf"):
        export(run, str(tmp_path), formats=["jpg"])
    with pytest.raises(ConfigError, match="There are: lift"):
        export(run, str(tmp_path), classes=["lft"])


def test_tensorboard_gets_every_figure_through_its_own_client(run: Run, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        cli.app, ["export", run.url, "--to", str(tmp_path), "--log", "tensorboard", "--step", "7"]
    )
    assert result.exit_code == 0, result.output
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == set(figures_of(run))
    [event] = events.Scalars("effect/lift/cup_up/spatiotemporal/late")
    assert (event.step, event.value) == (7, pytest.approx(0.81))


@pytest.mark.parametrize("tracker", ["tensorboard", "mlflow", "wandb"])
def test_without_its_client_the_fix_is_named(run: Run, tracker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ConfigError, match=rf"pip install 'vtcav-ray\[{tracker}\]'"):
        log_run(run, tracker, destination="x")


def installed(client: str) -> None:
    """Skip if the tracker's client is not installed. MLflow and W&B need dozens of packages, so CI has neither."""
    pytest.importorskip(client, reason=f"{client} is not installed: pip install 'vtcav-ray[{client}]'")


@pytest.fixture(scope="module")
def many(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return more figures than MLflow accepts in one call."""
    import pyarrow as pa

    folder = Folder(str(tmp_path_factory.mktemp("many")))
    row = run.table("scores").to_pylist()[0]
    rows = [{**row, "class": f"class {k}", "effect": k / 100} for k in range(600)]
    scores = stage_folder(folder, "scores", "k")
    scores.commit("final", ShardOutput({"scores": pa.Table.from_pylist(rows, schema=tables.SCORES)}))
    scores.finish({}, {"warnings": [], "notes": {}, "seconds": 1.0})
    folder.write_json("run.json", run.record)
    return Run(folder.url)


@pytest.mark.slow
def test_mlflow_gets_every_figure_through_its_own_client(
    many: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # its database store needs even more packages
    store = (tmp_path / "store").as_uri()
    result = CliRunner().invoke(cli.app, ["export", many.url, "--to", store, "--log", "mlflow", "--step", "7"])
    assert result.exit_code == 0, result.output
    import mlflow

    client = mlflow.MlflowClient(store)
    [logged] = client.search_runs([client.get_experiment_by_name("video-tcav").experiment_id])
    assert logged.data.tags["vtcav_run"] == many.url
    figures = figures_of(many)
    assert len(logged.data.metrics) == len(figures) == 1202
    name = "effect/class 42/cup_up/spatiotemporal/late"
    [point] = client.get_metric_history(logged.info.run_id, name)
    assert (point.step, point.value) == (7, pytest.approx(0.42))


@pytest.mark.slow
def test_mlflow_that_can_not_be_reached_is_one_paragraph(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    installed("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConfigError, match=r"http://127\.0\.0\.1:9 \(--to\).*tracking URI") as caught:
        log_run(run, "mlflow", destination="http://127.0.0.1:9")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_wandb_gets_every_figure_through_its_own_client(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    result = CliRunner().invoke(cli.app, ["export", run.url, "--to", "video-tcav", "--log", "wandb", "--step", "7"])
    assert result.exit_code == 0, result.output
    [file] = tmp_path.glob("wandb/offline-run-*/*.wandb")
    content = file.read_bytes()
    for name in figures_of(run):
        assert name.encode() in content, name


@pytest.mark.slow
def test_wandb_without_a_login_is_one_paragraph(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # where a login would be stored
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    import wandb

    wandb.teardown()  # it remembers the mode of the last run
    with pytest.raises(ConfigError, match=r"project x \(--to\).*wandb login") as caught:
        log_run(run, "wandb", destination="x")
    assert "\n" not in str(caught.value)


def test_an_unknown_tracker_is_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match="tensorboard, mlflow, wandb"):
        log_run(run, "neptune", destination="x")


def test_a_class_without_cells_against_random_has_no_figure(run: Run) -> None:
    from vtcav_ray.exports import figures

    cells = read_cells(run.table("scores"), ["early", "late"])
    assert figures.effects(cells, "lift") is not None
    assert figures.matrix(cells, "early") is not None


def test_the_verdicts_are_one_line_per_class(run: Run, written: dict[str, Path]) -> None:
    lines = written["verdicts.txt"].read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(set(run.table("scores")["class"].to_pylist()))
    assert any(line.startswith("lift: Uses ") for line in lines)


def test_concepts_against_their_motion_controls_have_a_matrix_of_their_own() -> None:
    import pyarrow as pa

    from vtcav_ray.exports import figures

    def cell(concept: str, against: str, effect: float) -> dict[str, object]:
        return {
            "class": "lift", "layer": "late", "concept": concept, "kind": concept.rpartition("/")[2],
            "against": against, "effect": effect, "significant": True, "learnable": True, "decided_by": "effect",
        }  # fmt: skip

    rows = [
        cell("up/given", "random", 0.5),
        cell("up/given", "up/given_reversed", 2.0),
        cell("down/given", "down/given_reversed", -1.0),
        cell("up/given", "down/given", 9.0),  # another concept, no twin
    ]
    cells = read_cells(pa.Table.from_pylist(rows, schema=tables.SCORES), ["late"])
    assert figures.controls(cells) == ["given_reversed"]
    with figures.style():
        figure = figures.matrix(cells, "late", "given_reversed")
        plain = figures.matrix(cells, "late")
    assert figure is not None
    assert plain is not None
    (image,) = figure.axes[0].images
    assert image.get_array().tolist() == [[-1.0, 2.0]]
    assert "against given reversed" in figure.axes[0].get_title(loc="left")
    assert plain.axes[0].images[0].get_array().tolist() == [[0.5]]


@pytest.mark.slow
def test_the_title_of_a_low_figure_is_above_those_of_its_panels() -> None:
    """With an odd number of layers, the middle panel is below the figure's title."""
    import pyarrow as pa
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from vtcav_ray.exports import figures

    layers = ["early", "late", "head"]
    rows = [
        {"class": "lift", "layer": layer, "concept": "up/given", "kind": "given", "against": "random", "effect": 0.5}
        for layer in layers
    ]
    with figures.style():
        figure = figures.effects(read_cells(pa.Table.from_pylist(rows, schema=tables.SCORES), layers), "lift")
        assert figure is not None
        renderer = FigureCanvasAgg(figure).get_renderer()
        titles = [panel.title.get_window_extent(renderer) for panel in figure.axes]
        ticks = [label.get_window_extent(renderer) for panel in figure.axes for label in panel.get_xticklabels()]
        assert figure._suptitle.get_window_extent(renderer).y0 > max(box.y1 for box in titles)
        assert figure._supxlabel.get_window_extent(renderer).y1 < min(box.y0 for box in ticks)

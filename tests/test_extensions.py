"""Extensions by other packages: every example of docs/extending.md, used as a user would use it."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import vtcav_ray
from tests.helpers.small_runs import without_ray
from tests.helpers.whole_clip import build_clip
from vtcav_ray import registry
from vtcav_ray.activations import Extractor, make_projection
from vtcav_ray.cavs import train_cavs
from vtcav_ray.config import Config, ModelConfig
from vtcav_ray.config.loading import load_config, parse_config
from vtcav_ray.errors import ConfigError
from vtcav_ray.models import load_recogniser, model_digest
from vtcav_ray.models.base import TokenGrid
from vtcav_ray.models.families import family_of

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"
GOLDEN = ROOT / "tests" / "golden" / "run.zip"
ADDED = {
    registry.SOLVERS: "mean_difference",
    registry.PROJECTIONS: "first:n",
    registry.FRAMEWORKS: "my_framework",
    registry.FAMILIES: "MyBackbone",
    registry.CONCEPT_KINDS: "slowed",
    registry.MOTION_CONTROLS: "swapped",
    registry.TRACK_SOURCES: "parquet",
    registry.TRACK_FORMATS: "lines",
    registry.REPORT_SECTIONS: "strongest",
}


def examples() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def module_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's examples as a user's module."""
    file = tmp_path_factory.mktemp("outside") / "my_extensions.py"
    file.write_text("\n\n".join(examples()))
    return file


@pytest.fixture(scope="module")
def outside(module_file: Path) -> Iterator[ModuleType]:
    """That module, imported; its additions are removed at the end."""
    with pytest.MonkeyPatch.context() as patch:
        for one in registry.REGISTRIES:
            patch.setattr(one, "_entries", dict(one._entries))
        patch.syspath_prepend(str(module_file.parent))
        yield importlib.import_module("my_extensions")
        sys.modules.pop("my_extensions")


def config(**sections: Any) -> Config:
    return parse_config({"videos": {"uri": "x"}, **sections})


def test_an_example_is_short_and_there_is_one_of_each() -> None:
    codes = examples()
    assert len(codes) == len(registry.REGISTRIES) == len(ADDED)
    for code in codes:
        body = re.sub(r"^(from|import) .*\n", "", code, flags=re.MULTILINE)
        assert len(body.strip().splitlines()) <= 20


@pytest.mark.parametrize("one", registry.REGISTRIES, ids=lambda one: one.group)
def test_each_module_registers_the_names_that_are_listed_for_it(one: registry.Registry) -> None:
    for module in set(one._home.values()):
        importlib.import_module(module)
    assert set(one._home) <= set(one._entries)
    for name, module in one._home.items():
        assert one._entries[name].__module__ == module, name
    inside = {name for name, entry in one._entries.items() if entry.__module__.startswith("vtcav_ray.")}
    assert inside == set(one._home)


@pytest.mark.usefixtures("outside")
def test_the_config_accepts_each_name_and_names_the_nearest() -> None:
    for one, name in ADDED.items():
        assert name in one
    good = config(
        cavs={"solver": "mean_difference"},
        activations={"projection": "first:2", "layers": ["late", "early@first:1"]},
        clips={"concepts": [{"name": "a", "kinds": ["slowed"], "controls": ["swapped"]}], "controls": ["swapped"]},
        tracks={"source": "parquet"},
    )
    assert good.activations.projection_names == {"first:n"}
    assert (good.clips.kind_names, good.clips.control_names) == ({"slowed"}, {"swapped"})
    with pytest.raises(ConfigError) as caught:
        config(
            cavs={"solver": "mean_diffrence"},
            activations={"projection": "first"},
            clips={"concepts": [{"name": "a", "kinds": ["slowd"]}], "controls": ["swaped"]},
            tracks={"source": "parkuet"},
        )
    for key, near in [
        ("`cavs.solver` (value 'mean_diffrence')", "mean_difference"),
        ("`activations.projection` (value 'first')", "first:n"),
        ("`clips.concepts.0.kinds.0` (value 'slowd')", "slowed"),
        ("`clips.controls.0` (value 'swaped')", "swapped"),
        ("`tracks.source` (value 'parkuet')", "parquet"),
    ]:
        line = next(line for line in str(caught.value).splitlines() if key in line)
        assert f"Did you mean `{near}`?" in line


def test_a_name_that_was_not_added_is_unknown(tmp_path: Path) -> None:
    for section in ({"cavs": {"solver": "not_added"}}, {"activations": {"projection": "last:2"}}):
        with pytest.raises(ConfigError, match=r"any entry point of the group `vtcav_ray\."):
            config(**section)
    file = tmp_path / "c.yaml"
    file.write_text("videos: {uri: x}\nmodel: {framework: mmaction}\n")
    with pytest.raises(ConfigError, match=r"`model.framework`: No framework `mmaction`.*Did you mean `mmaction2`"):
        load_config(str(file))


def test_a_name_belongs_to_the_module_that_registered_it() -> None:
    one = registry.Registry("thing", "vtcav_ray.things", {"vtcav_ray.cavs.solvers": ("taken",)})

    def mine() -> None: ...

    with pytest.raises(ValueError, match=r"vtcav_ray\.cavs\.solvers has registered the thing 'taken' already"):
        one.register("taken")(mine)
    with pytest.raises(ValueError, match="letters, digits"):
        one.register("a/b")
    assert one.register("mine")(mine) is mine
    assert one.register("mine")(mine) is mine  # as a notebook cell that runs again
    assert list(one) == ["taken", "mine"]
    assert (one["mine"], one.get("other", 3)) == (mine, 3)
    assert one.added() == {"mine": mine}


@pytest.mark.usefixtures("outside")
def test_solver() -> None:
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(60, 5)) + 3
    pool[:20, 1] += 2
    found = train_cavs(pool, [np.arange(20)], [np.arange(20, 60)], solver="mean_difference", held_out=0.0)
    between = pool[:20].mean(0) - pool[20:].mean(0)
    np.testing.assert_allclose(found.vectors[0], between / np.linalg.norm(between), atol=1e-6)
    middle = (pool[:20].mean(0) + pool[20:].mean(0)) / 2
    assert middle @ found.vectors[0] + found.bias[0] == pytest.approx(0, abs=1e-5)
    assert found.train_accuracy[0] > 0.8
    with pytest.raises(ValueError, match="`mean_difference` has none"):
        train_cavs(pool, [[0, 1]], [[2, 3]], solver="mean_difference", regularization=1.0)


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(("spec", "times"), [("first:2", 2), ("first:9", 4)])
def test_projection(spec: str, times: int) -> None:
    shape = (4, 3, 2, 5)
    a, w = torch.randn(2, *shape, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    projection = make_projection(spec, shape)
    torch.testing.assert_close(projection.apply(a).double(), a[:, :times].float().mean((1, 2, 3)).double())
    transposed = projection.transpose(w)
    assert (a * transposed).sum() == pytest.approx((projection.apply(a).double() * w).sum().item(), rel=1e-5)
    lifted = projection.apply(projection.transpose(projection.solve(w)))
    torch.testing.assert_close(lifted.double(), w, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("outside")
def test_framework() -> None:
    section = ModelConfig(framework="my_framework", config="x", checkpoint="untrained")
    recogniser = load_recogniser(section, "cpu")
    assert recogniser.digest == model_digest(section) != model_digest(section.model_copy(update={"config": "y"}))
    clips = [np.random.RandomState(i).randint(0, 256, (8, 30, 40, 3), np.uint8) for i in range(2)]
    found = Extractor(recogniser, ["early", "head"], "first:1").extract(clips, [[0], [1]])
    assert found.activations["early"].shape == (2, 8)
    assert np.abs(found.gradients["head"]).max() > 0


@pytest.mark.usefixtures("outside")
def test_family() -> None:
    class MyBackbone(nn.Module):
        frames = 8

        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Identity() for _ in range(5))

    class Unknown(MyBackbone): ...

    head = nn.Sequential(nn.Linear(2, 2))
    known = family_of(nn.ModuleDict({"backbone": MyBackbone(), "cls_head": head}))
    assert known.aliases == {
        "early": "backbone.blocks.0",
        "middle": "backbone.blocks.2",
        "late": "backbone.blocks.4",
        "head": "cls_head.0:in",
    }
    assert (known.tokens, known.frames) == (TokenGrid("thw", 16, 2), 8)
    assert family_of(nn.ModuleDict({"backbone": Unknown(), "cls_head": head})).aliases == {"head": "cls_head.0:in"}


@pytest.mark.usefixtures("outside")
def test_kind_and_control_build_clips() -> None:
    frames = np.arange(8, dtype=np.uint8)[:, None, None, None] * np.ones((1, 20, 20, 3), np.uint8) + 1
    boxes = np.array([[5.0, 5, 15, 15]] * 8)
    assert build_clip("slowed", frames, boxes, 10)[:, 5, 5, 0].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert build_clip("swapped", frames, boxes, 10)[:, 5, 5, 0].tolist() == [5, 6, 7, 8, 1, 2, 3, 4]


SMALL = [
    "videos.world.videos=32", "clips.frames=8", "clips.per_class=3", "clips.min_per_class=2", "clips.per_concept=4",
    "clips.min_per_concept=3", "clips.random_pool=8", "activations.layers=[late@first:2]", "cavs.random_sets=4",
    "scores.permutations=200", "scores.bootstrap=100", "cavs.solver=mean_difference", "tracks.source=parquet",
    "clips.concepts=[{name: cup, object: cup, kinds: [spatial, spatiotemporal, slowed], controls: [swapped]}]",
]  # fmt: skip


@pytest.fixture(scope="module")
def tracks_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the golden run's tracks, and that run's world beside it."""
    folder = tmp_path_factory.mktemp("own_tracks")
    with zipfile.ZipFile(GOLDEN) as archive:
        names = archive.namelist()
        archive.extractall(folder, [n for n in names if n.startswith(("run/world/", "run/tracks/"))])
    parts = sorted(p for p in (folder / "run" / "tracks").rglob("*.parquet") if p.parent.name == "tracks")
    file = folder / "tracks.parquet"
    pq.write_table(pa.concat_tables([pq.read_table(part) for part in parts]), file)
    return file


@pytest.mark.slow
@pytest.mark.usefixtures("outside")
def test_a_run_of_all_of_them(tracks_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (tracks_file.parent / "run" / "world").rename(run_folder / "world")
    overrides = [*SMALL, f"tracks.weights={tracks_file}"]
    settings = load_config(str(ROOT / "configs" / "quickstart.yaml"), overrides, out=str(run_folder))
    with without_ray():
        run = vtcav_ray.run(settings)
    videos = set(run.table("videos", columns=["video_id"])["video_id"].to_pylist())
    tracks = run.table("tracks")
    assert tracks.num_rows
    assert tracks.num_rows == pq.read_metadata(tracks_file).num_rows
    assert set(tracks["video_id"].to_pylist()) <= videos
    clips = run.table("clips", columns=["set", "name", "kind"]).to_pylist()
    kinds = {(clip["set"], clip["kind"]) for clip in clips}
    assert kinds >= {(set_, kind) for set_ in ("concept", "random") for kind in ("slowed", "swapped")}
    cavs = run.table("cavs", columns=["solver", "concept", "against", "held_out_accuracy"]).to_pylist()
    assert {cav["solver"] for cav in cavs} == {"mean_difference"}
    # It declares that it moves, so it is compared with still clips and with the controls.
    against = {cav["against"] for cav in cavs if cav["concept"] == "cup/slowed"}
    assert {"cup/spatial", "cup/swapped"} <= against
    scores = run.table("scores").to_pylist()
    assert {"cup/slowed", "cup/swapped"} <= {row["concept"] for row in scores}
    assert {row["layer"] for row in scores} == {"late@first:2", "answer"}
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    assert '<section id="strongest"><h2>Strongest</h2><p>cup/' in page
    assert page.index('<a href="#strongest">Strongest</a>') < page.index('<a href="#run">')
    # Another version of the solver's code changes the key of its stage, but of no earlier stage.
    before = dict(run.keys)
    monkeypatch.setattr(registry.SOLVERS["mean_difference"], "version", "2")
    with without_ray():
        after = dict(vtcav_ray.run(settings).keys)
    changed = {stage for stage in before if before[stage] != after[stage]}
    assert changed == {"cavs", "scores", "report"}


def test_a_section_escapes_what_it_shows(outside: ModuleType) -> None:
    @dataclasses.dataclass
    class Data:
        scores: pa.Table

    row = {"concept": "<b>", "class": "lift", "layer": "late", "effect": 1.0}
    html = outside.Strongest().html("strongest", Data(pa.Table.from_pylist([row])), None)
    assert "<b>" not in html
    assert "&lt;b&gt; on lift" in html


INSTALLED = """
import json, sys
from vtcav_ray.config.loading import parse_config
from vtcav_ray.registry import SOLVERS, added_code

parse_config({"videos": {"uri": "x"}, "cavs": {"solver": "mean_difference"}})
early = "my_extensions" in sys.modules or "torch" in sys.modules
solver = SOLVERS["mean_difference"]
try:
    SOLVERS["broken"]
except Exception as error:
    reported = f"{type(error).__name__}: {error}"
del solver.version
print(json.dumps([early, solver.__name__, added_code({SOLVERS: ["mean_difference", "ridge"]}), reported]))
"""


@pytest.mark.full
def test_an_installed_package_adds_by_entry_point(module_file: Path) -> None:
    info = module_file.parent / "my_extensions-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-extensions\nVersion: 3.1\n")
    toml = re.findall(r"^```toml\n\[project\.entry-points\.\"(\S+)\"\]\n(\w+) = \"(\S+)\"\n```", PAGE.read_text(), re.M)
    group, name, value = toml[0]
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\nbroken = my_extensions:Missing\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(module_file.parent), str(ROOT)])}
    found = subprocess.run([sys.executable, "-c", INSTALLED], capture_output=True, text=True, env=environment)
    assert found.returncode == 0, found.stderr
    early, solver, code, reported = json.loads(found.stdout)
    assert early is False  # a name is checked without importing anything
    assert solver == "MeanDifference"
    where = {"entry": "my_extensions:MeanDifference", "version": "3.1"}
    assert code == {"added": {"vtcav_ray.solvers": {"mean_difference": where}}}
    assert reported.startswith(
        "ConfigError: The entry point `my_extensions:Missing` of vtcav_ray.solvers can't be loaded"
    )


SCRIPT = """
import sys, ray.cloudpickle
from vtcav_ray.cavs import Solver
from vtcav_ray.registry import SOLVERS, with_added

assert with_added(print) is print  # nothing was added

@SOLVERS.register("of_the_script")
class OfTheScript(Solver):
    default_regularization = 0.25
    def solve(self, kernel_MTT, labels_MT): ...

def make():
    from vtcav_ray.registry import SOLVERS
    return SOLVERS["of_the_script"].default_regularization

sys.stdout.buffer.write(ray.cloudpickle.dumps(with_added(make)))
"""
WORKER = "import sys, pickle; print(pickle.load(sys.stdin.buffer)())"


@pytest.mark.full
def test_a_worker_process_finds_what_a_script_has_added() -> None:
    sent = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True)
    assert sent.returncode == 0, sent.stderr.decode()
    found = subprocess.run([sys.executable, "-c", WORKER], input=sent.stdout, capture_output=True)
    assert found.stdout.decode().strip() == "0.25", found.stderr.decode()

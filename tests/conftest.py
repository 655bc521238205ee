"""Fixtures of several folders, the order of the files, and the skips where something is missing."""

from __future__ import annotations

import functools
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import typer.main
import typer.testing
from filelock import FileLock

from tests.helpers.programs import find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.helpers.planted_run import PlantedRun
    from vtcav_ray.models import Recogniser

# Collecting files imports large libraries, which the garbage collector would go through again and again: without it,
# each worker saves a third of the time. `pytest_collection_finish` enables it.
gc.disable()

# A shell's background job ignores SIGINT, and so would every process that the tests start and end with Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Workers that share the cores: each computes with one thread, as Ray's workers do.
if "PYTEST_XDIST_WORKER" in os.environ:
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

# Ray's workers run at niceness 15 by default. Beside other tests they would get 3 % of a core, and tests that wait for
# them would be slow.
os.environ.setdefault("RAY_worker_niceness", "0")

# `make test-fast` draws a quarter of the examples that a property-based test names (tests/helpers/examples.py).
hypothesis.settings.register_profile("default", max_examples=100)
hypothesis.settings.register_profile("quick", max_examples=25)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real videos and real weights, beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"no real videos and weights at {SHARED}")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def one_command_line() -> Iterator[None]:
    """Build the command `vtcav` once per worker: typer builds all subcommands for every call."""
    built = functools.cache(typer.main.get_command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", built)
        patch.setattr(typer.testing, "_get_command", built)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_early_ray() -> Iterator[None]:
    """Start Ray in this process only when a stage needs it: many tests stop at a run's checks."""
    from vtcav_ray.engine import LazySession

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LazySession, "start_early", lambda self: None)
        yield


@pytest.fixture(scope="session")
def swin() -> Recogniser:
    """The planted world's architecture (a small Video Swin for 16 x 64 x 64), with random weights. Don't change it."""
    from tests.helpers.recognisers import untrained_swin

    return untrained_swin()


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedRun:
    """One run of a planted world for all workers. Don't change it: `planted.copy` makes one that may be changed."""
    from tests.helpers.planted_run import PlantedRun

    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # the workers' common folder
    folder, done = root / "planted", root / "planted.done"
    with FileLock(root / "planted.lock"):
        if not done.exists():
            # In its own process: the file that comes first may have a Ray, or stand-ins for stages, in this one.
            command = [sys.executable, "-m", "tests.helpers.planted_run", str(folder)]
            environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
            made = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
            assert made.returncode == 0, made.stdout + made.stderr
            done.touch()
    return PlantedRun(folder)


@pytest.fixture(scope="module")
def planted_copy(planted: PlantedRun, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A copy of the planted run for one file, whose tests may change it."""
    return str(planted.copy(tmp_path_factory.mktemp("copy") / "run"))


@pytest.fixture(scope="module")
def no_ray() -> Iterator[None]:
    """All shards run in this process, with the real models."""
    from tests.helpers.small_runs import without_ray

    with without_ray():
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for one file: Playwright's event loop would stop other tests of this process from starting theirs."""
    from tests.helpers.browser import chromium

    with chromium() as started:
        yield started


# What takes more than about 15 s, the longest first: files go to the workers in this order, so all end together.
LONGEST = (
    "shared_ray",
    "test_pipeline.py",
    "test_jobs.py",
    "test_nodes.py",
    "test_object_storage_runs.py",
    "test_every_page.py",
    "test_browser.py",
    "test_heads.py",
    "test_wheel.py",
    "test_stopping.py",
    "test_gpu.py",
    "test_object_storage.py",
    "test_reruns.py",
    "test_memory.py",
    "test_segments_run.py",
    "test_own_clips_run.py",
    "test_transformers_run.py",
    "test_page_tools.py",
    "test_golden.py",
    "test_segment_memory.py",
    "test_families.py",
    "test_faithful_run.py",
    "test_patch_scores.py",
    "test_maps_stage.py",
    "test_patch_stage.py",
    "test_patch_engine.py",
    "test_shortcut.py",
    "test_explain_run.py",
    "test_without_yolo.py",
    "test_search.py",
    "test_examples_section.py",
    "test_watch_s3.py",
    "test_dead_ray.py",
    "test_copies.py",
    "test_gradcam_stage.py",
    "test_imports.py",
    "test_rehearse.py",
    "test_one_layer.py",
    "test_fuzz.py",
    "test_decode.py",
    "test_examples.py",
    "test_notebooks.py",
)


ONE_WORKER = "tests/engine/shared_ray/"  # a folder whose files share a Ray


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each file to one worker, as `--dist loadfile` does, and the folder `ONE_WORKER` as if it were one file."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByFileOrFolder(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return ONE_WORKER if nodeid.startswith(ONE_WORKER) else str(super()._split_scope(nodeid))

    return ByFileOrFolder(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: i for i, name in enumerate(LONGEST)}

    def place(item: pytest.Item) -> int:
        name = "shared_ray" if item.nodeid.startswith(ONE_WORKER) else item.path.name
        return rank.get(name, len(rank))

    items.sort(key=place)
    for item in items:
        if "planted" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)  # the run takes a minute
        if item.get_closest_marker("shared") and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"no real videos and weights at {SHARED}"))
        if item.get_closest_marker("browser") and find_chromium() is None:
            item.add_marker(pytest.mark.skip(reason="no Chromium (apt-get install chromium)"))


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()  # what was imported stays until the end
    gc.enable()

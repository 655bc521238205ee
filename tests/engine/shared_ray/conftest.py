"""One Ray for all files of this folder, whose tests leave it as it was. xdist gives the folder to one worker."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest
import ray
import ray.cloudpickle

from tests.helpers import poison, tracked_things, waiting
from tests.helpers.poison import install
from vtcav_ray.config import ResourcesConfig
from vtcav_ray.engine import ray_session

HELPERS = (poison, tracked_things, waiting)


@pytest.fixture(scope="package")
def shared_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Ray that keeps its processes, and in which some videos' names kill the decoder."""
    site = install(tmp_path_factory.mktemp("site"))
    for module in HELPERS:
        ray.cloudpickle.register_pickle_by_value(module)
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:  # for Ray's processes, not for those that the tests start
            patch.setenv("PYTHONPATH", os.pathsep.join([site, os.environ.get("PYTHONPATH", "")]))
            patch.delenv("OMP_NUM_THREADS", raising=False)
            patch.setenv("YOLO_AUTOINSTALL", "true")  # a run installs nothing, whatever the user has set
            stack.enter_context(ray_session(ResourcesConfig(num_cpus=2), keep=True))
            assert "OMP_NUM_THREADS" not in os.environ
            assert os.environ["YOLO_AUTOINSTALL"] == "true"
        yield ray.get_runtime_context().gcs_address
    for module in HELPERS:
        ray.cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture(scope="module")
def on_ray(shared_ray: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """Definitions of the test's module travel with the pickle, because Ray's workers can't import it."""
    ray.cloudpickle.register_pickle_by_value(request.module)
    yield
    ray.cloudpickle.unregister_pickle_by_value(request.module)

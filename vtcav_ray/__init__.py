"""Video-TCAV on Ray: which concepts a video action recogniser uses, at which depth, and how sure one can be.

run = vtcav_ray.run("asset:quickstart.yaml")
print(run.summary())

found = vtcav_ray.explain(model, concepts={"up": up}, random=others, examples={"lift": lifts})
found.table
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vtcav_ray.version import __version__ as __version__

__all__ = ["Config", "Explanation", "NetworkSpec", "Run", "explain", "load_config", "parse_config", "read_clips", "run"]

if TYPE_CHECKING:
    from vtcav_ray.config import Config
    from vtcav_ray.config.loading import load_config, parse_config
    from vtcav_ray.models.python_module import NetworkSpec
    from vtcav_ray.notebook.explaining import explain
    from vtcav_ray.notebook.explanation import Explanation
    from vtcav_ray.notebook.opened_run import Run, run
    from vtcav_ray.notebook.reading import read_clips

# Imported on first use: the pipeline brings Arrow and every stage with it, and `--version` should not wait.
_HOME = {
    "Config": "vtcav_ray.config",
    "Explanation": "vtcav_ray.notebook.explanation",
    "NetworkSpec": "vtcav_ray.models.python_module",
    "Run": "vtcav_ray.notebook.opened_run",
    "explain": "vtcav_ray.notebook.explaining",
    "load_config": "vtcav_ray.config.loading",
    "parse_config": "vtcav_ray.config.loading",
    "read_clips": "vtcav_ray.notebook.reading",
    "run": "vtcav_ray.notebook.opened_run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """Return the names that are for users, also those that are imported on first use."""
    return sorted([*__all__, "__doc__", "__version__"])

"""Video-TCAV on Ray: which concepts a video action recogniser uses, at which depth, and how sure one can be.

config = vtcav_ray.load_config("configs/quickstart.yaml")
result = vtcav_ray.run(config)
result.table("scores")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vtcav_ray.version import __version__ as __version__

__all__ = ["Config", "Run", "load_config", "parse_config", "run"]

if TYPE_CHECKING:
    from vtcav_ray.config import Config
    from vtcav_ray.config.loading import load_config, parse_config
    from vtcav_ray.pipeline import run
    from vtcav_ray.runs.run import Run

# Imported on first use: the pipeline brings Arrow and every stage with it, and `--version` should not wait.
_HOME = {
    "Config": "vtcav_ray.config",
    "load_config": "vtcav_ray.config.loading",
    "parse_config": "vtcav_ray.config.loading",
    "run": "vtcav_ray.pipeline",
    "Run": "vtcav_ray.runs.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)

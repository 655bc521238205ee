"""Model configs for tests: the packaged recogniser's as data and as a program, and files of any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vtcav_ray.config import ModelConfig
from vtcav_ray.models.config_files import read_config
from vtcav_ray.store.assets import resolve_asset


def base() -> dict[str, Any]:
    """Return the packaged recogniser's config as data."""
    parsed = read_config("asset:recogniser.py")
    data = {"model": parsed.model, "test_pipeline": list(parsed.pipeline), "classes": list(parsed.class_names or ())}
    plain: dict[str, Any] = json.loads(json.dumps(data))
    return plain


def written(folder: Path, data: Any, suffix: str = ".json") -> ModelConfig:
    path = folder / f"model{suffix}"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return ModelConfig(config=str(path), checkpoint="untrained")


def asset_text() -> str:
    text = Path(resolve_asset("asset:recogniser.py")).read_text()
    labels = repr(resolve_asset("asset:recogniser_labels.txt"))
    return f"{text}\nlabel_file = {labels}\n"

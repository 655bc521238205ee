"""Overrides of a config: `--set key=value`."""

from __future__ import annotations

from typing import Any

import pytest

from vtcav_ray.config.loading import apply_overrides
from vtcav_ray.errors import ConfigError


def test_an_override_names_an_entry_of_a_list_by_number() -> None:
    data: dict[str, Any] = {"clips": {"concepts": [{"name": "a"}, {"name": "b"}]}}
    apply_overrides(data, ["clips.concepts.1.clips=mine", "clips.concepts.0={name: c}"])
    assert data["clips"]["concepts"] == [{"name": "c"}, {"name": "b", "clips": "mine"}]
    for wrong in ("2", "first", "-1"):
        with pytest.raises(ConfigError, match=rf"clips.concepts.{wrong}.clips: `{wrong}` is no entry.*0 to 1"):
            apply_overrides(data, [f"clips.concepts.{wrong}.clips=x"])

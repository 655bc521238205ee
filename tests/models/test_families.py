"""Every family of recognisers, from its packaged config, at full width and depth and with small inputs."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from tests.helpers.families import PAGE, TRIALS, examine, table_row
from vtcav_ray.models.config_files import read_config
from vtcav_ray.models.families import family_of
from vtcav_ray.models.mmaction import build_mmaction

# One of each way in which numbers pass through a network: windows, a class token, pooled tokens, two paths, a neck,
# frames in the batch. The others run with `make test-all`.
ALWAYS = ("Video Swin-T", "TimeSformer, divided", "MViT", "SlowFast", "TPN", "TSM, MobileNetV2")


@pytest.mark.slow
@pytest.mark.parametrize("family", [pytest.param(f, marks=() if f in ALWAYS else pytest.mark.full) for f in TRIALS])
def test_family(family: str, tmp_path: Path) -> None:
    rows = examine(TRIALS[family], tmp_path)
    for alias in ("early", "middle", "late"):
        assert not rows[alias].degenerate, alias
    assert rows["early"].cost >= rows["middle"].cost >= rows["late"].cost >= rows["head"].cost
    assert table_row(family, rows) in PAGE.read_text(encoding="utf-8").splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("family", [family for family in TRIALS if family not in ALWAYS])
def test_the_layers_of_a_family_are_those_of_the_page(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the families that only `make test-all` runs, without memory for their weights."""
    monkeypatch.setattr(torch, "linspace", functools.partial(torch.linspace, device="cpu"))  # its values are read
    config = TRIALS[family].config
    with torch.device("cpu" if family == "TANet" else "meta"):  # TANet copies its weights while it is built
        module = build_mmaction(read_config(config), config, seed=None)
    aliases = family_of(module).aliases
    (line,) = [x for x in PAGE.read_text(encoding="utf-8").splitlines() if x.startswith(f"| {family} | ")]
    for alias, cell in zip(("early", "middle", "late", "head"), line.split(" | ")[2:], strict=True):
        assert cell.startswith(f"`{aliases[alias]}` "), alias
        module.get_submodule(aliases[alias].removesuffix(":in"))

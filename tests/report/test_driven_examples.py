"""Which class examples a report shows, and how many of them fit."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tests.helpers import report_factory as factory
from tests.helpers.report_factory import cell, table
from vtcav_ray.report import examples
from vtcav_ray.report.examples import find_driven, read_examples
from vtcav_ray.report.previews import ClipHead, make_preview
from vtcav_ray.report.score_cells import read_cells
from vtcav_ray.report.verdicts import verdicts

LAYERS = ["late", "head"]
FOUND = {"significant": True, "q": 0.004, "z": 9.0}


def sensitivities(rows: list[tuple[str, str, str, str, float]]) -> pa.Table:
    names = factory.SENSITIVITIES.names
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], factory.SENSITIVITIES)


def driven_of(
    cells: list[dict], values: list[tuple[str, str, str, str, float]]
) -> dict[str, tuple[str, str, str, str]]:
    read = read_cells(table(cells), LAYERS)
    found = find_driven(read, verdicts(read), sensitivities(values))
    return {name: (one.concept, one.layer, one.most, one.least) for name, one in found.items()}


def test_the_concept_of_the_clearest_finding_orders_the_examples() -> None:
    cells = [cell(concept="up/context", effect=2.0, **FOUND), cell(concept="cup/spatial", effect=0.1)]
    of = [("lift", "late", "up/context", f"v{k}", value) for k, value in enumerate((0.1, 0.9, -0.3))]
    others = [("lift", "late", "cup/spatial", "v0", 9.0), ("drop", "late", "up/context", "v9", 9.0)]
    others += [("lift", "head", "up/context", "v8", 9.0)]
    assert driven_of(cells, [*others, *of]) == {"lift": ("up/context", "late", "v1", "v2")}


def test_where_a_concept_lowers_the_class_the_most_driven_falls_most() -> None:
    cells = [cell(concept="down/context", effect=-2.0, **{**FOUND, "z": -9.0})]
    values = [("lift", "late", "down/context", f"v{k}", value) for k, value in enumerate((0.1, 0.9, -0.3))]
    assert driven_of(cells, values) == {"lift": ("down/context", "late", "v2", "v1")}


def test_a_layer_with_one_gradient_for_all_orders_nothing() -> None:
    cells = [
        cell(concept="up/context", layer="head", effect=9.0, degenerate=True, **{**FOUND, "z": 20.0}),
        cell(concept="up/context", layer="late", effect=2.0, **FOUND),
    ]
    values = [("lift", layer, "up/context", f"v{k}", float(k)) for layer in LAYERS for k in range(3)]
    assert driven_of(cells, values) == {"lift": ("up/context", "late", "v2", "v0")}
    assert driven_of(cells[:1], values) == {}


def test_a_class_without_a_finding_or_without_sensitivities_has_none() -> None:
    assert driven_of([cell()], [("lift", "late", "cup up/spatiotemporal", "v0", 1.0)]) == {}
    read = read_cells(table([cell(**FOUND)]), LAYERS)
    assert find_driven(read, verdicts(read), None) == {}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Stands in for decoding: every clip becomes a preview of noise. Returns (side, frames) of each."""
    calls: list[tuple[int, int]] = []

    def read(folder: object, heads: list[ClipHead], max_side: int = 112, max_frames: int = 16) -> dict:
        calls.extend([(max_side, max_frames)] * len(heads))
        noise = np.random.default_rng(0).integers(0, 255, (16, 64, 64, 3)).astype(np.uint8)
        return {head: make_preview("c", head.video_id, noise, max_side, max_frames) for head in heads}

    monkeypatch.setattr(examples, "read_previews", read)
    return calls


def heads(classes: int, each: int) -> list[ClipHead]:
    return [ClipHead("p", k, "class", f"c{k // each}", f"v{k}") for k in range(classes * each)]


@pytest.mark.slow
def test_a_few_examples_all_have_a_preview(made: list[tuple[int, int]]) -> None:
    found = read_examples(None, [*heads(4, 25), ClipHead("p", 100, "concept", "up/context", "v0")], {})  # type: ignore[arg-type]
    assert {name: len(of) for name, of in found.previews.items()} == {f"c{k}": 25 for k in range(4)}
    assert (found.left_out, found.note) == (0, "")


@pytest.mark.slow
def test_of_many_only_the_most_and_least_driven_ones_have_and_only_until_the_bytes_are_used(
    made: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    driven = {
        f"c{k}": examples.Driven("up/context", "late", f"v{25 * k}", f"v{25 * k + 1}", 1.0, 0.0) for k in range(20)
    }
    found = read_examples(None, heads(20, 25), driven)  # type: ignore[arg-type]
    assert all(set(of) == {driven[name].most, driven[name].least} for name, of in found.previews.items())
    assert found.left_out == 500 - 40
    assert "40 of 500 class examples have a preview" in found.note
    assert set(made) == {(examples.MANY_MAX_SIDE, examples.MANY_MAX_FRAMES)}
    size = len(next(iter(found.previews["c0"].values())).image)
    monkeypatch.setattr(examples, "MAX_BYTES", 10 * size)
    found = read_examples(None, heads(20, 25), driven)  # type: ignore[arg-type]
    assert sum(len(of) for of in found.previews.values()) == 10
    assert found.left_out == 490

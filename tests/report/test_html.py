"""The page as a file: complete, self-contained, and safe from text in the data."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from tests.helpers import report_factory as factory
from tests.helpers.report_factory import MODEL, NASTY, cell, report_data, table
from vtcav_ray import tables
from vtcav_ray.report import build_report
from vtcav_ray.report.packed_tables import pack_cells, pack_nulls, pack_videos
from vtcav_ray.report.score_cells import read_cells

VOID = {"meta", "br", "input", "img", "link", "hr"}


class Page(HTMLParser):
    """A parser that collects elements and text; it raises an error on a closing tag without an opening one."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> inside <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            attrs, text = self.scripts[-1]
            self.scripts[-1] = (attrs, text + data)
        elif self.open and self.open[-1] != "style":
            self.texts["all"] = self.texts.get("all", "") + data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", self.texts["all"])

    def facts(self) -> dict:
        return json.loads(next(text for attrs, text in self.scripts if attrs.get("id") == "facts"))


@pytest.fixture(scope="module")
def html() -> str:
    return build_report(report_data())


@pytest.mark.slow
def test_elements_nest_and_close(html: str) -> None:
    page = Page(html)
    assert page.open == []
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {"summary", "matrix", "class", "concepts", "run"} <= set(ids)


@pytest.mark.slow
def test_nothing_is_loaded_from_anywhere(html: str) -> None:
    page = Page(html)
    for tag, attrs in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        assert "src" not in attrs, (tag, attrs)
        assert not (attrs.get("href") or "#").strip().lower().startswith(("http", "//", "data:", "javascript:"))
    assert "@import" not in html
    assert not re.search(r"url\(\s*['\"]?(https?:)?//", html)
    policy = next(attrs["content"] for tag, attrs in page.elements if attrs.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")


def test_policy_names_exactly_the_scripts_that_run(html: str) -> None:
    page = Page(html)
    policy = next(attrs["content"] for tag, attrs in page.elements if attrs.get("http-equiv"))
    running = [text for attrs, text in page.scripts if "type" not in attrs]
    hashes = {base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in running}
    assert policy is not None
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == hashes
    assert len(running) == 2


def test_text_from_the_data_is_escaped_everywhere() -> None:
    concept = NASTY.replace("/", "÷")
    failure = {
        "stage": "videos", "uri": NASTY, "video_id": NASTY, "clip_id": NASTY, "error_kind": NASTY, "message": NASTY,
        "attempts": 2,
    }  # fmt: skip
    data = report_data(
        [cell(**{"class": NASTY, "concept": f"{concept}/spatial", "note": NASTY, "model": NASTY, "significant": True})],
        title=NASTY,
        failures=pa.Table.from_pylist([failure], schema=tables.FAILURES),
        warnings=[NASTY],
        versions={NASTY: NASTY},
        config={"name": NASTY, "activations": {"layers": ["late"]}},
        url=NASTY,
    )
    html = build_report(data)
    page = Page(html)
    assert page.open == []
    assert len(page.scripts) == 7  # five with data, two with code
    assert "<script>alert" not in html
    assert page.text.count("<script>alert(1)</script>") >= 8
    facts = page.facts()
    assert facts["classes"] == [NASTY]
    assert facts["title"] == NASTY


@pytest.mark.parametrize("model", [f"UNTRAINED@{'0' * 12}", MODEL])
def test_an_untrained_model_is_said_to_be_untrained_before_anything_else(model: str) -> None:
    page = Page(build_report(report_data([cell(model=model)])))
    assert ("This model is UNTRAINED." in page.text) == model.startswith("UNTRAINED")
    if model.startswith("UNTRAINED"):
        assert page.text.index("UNTRAINED") < page.text.index("What the model uses")


def test_summary_shows_counts_warnings_stages_and_failures(html: str) -> None:
    text = Page(html).text
    for expected in (
        "48 of 384 comparisons are significant at α = 0.05 after Holm's correction over all m = 384 comparisons.",
        "random sets (R) 50",
        "What could not be decided, and why",
        "R + 1 = 51 is under m / α = 7680",
        "512 tracks, 1 failures",
        "1 min 2 s",
        "8.26",
        "1 input could not be used. truncated: 1.",
        "The file ends after 1,204 bytes.",
        "solver: logistic",
        "torch 2.13.0",
    ):
        assert expected in re.sub(r"(?<=\))(?=\d)|(?<=torch)(?=2)", " ", text), expected


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([], id="no cells"),
        pytest.param([cell()], id="one cell"),
        pytest.param(factory.world_rows(("lift",)), id="one class"),
        pytest.param(
            [cell(**{f.name: None for f in tables.SCORES if f.name not in ("class", "layer", "concept", "model")})],
            id="all null",
        ),
        pytest.param([cell(effect=float("inf"), ci_high=float("nan"), tcav_score=float("nan"))], id="inf"),
    ],
)  # fmt: skip
def test_thin_data_makes_a_whole_page(rows: list) -> None:
    page = Page(build_report(report_data(rows, concepts={}, accuracies=None, entanglement=(), stages=(), config={})))
    assert page.open == []
    assert page.facts()["rows"] == len(rows)


def unpack(head: dict, data: str) -> dict[str, np.ndarray]:
    """Unpack as assets/store.js does, in NumPy."""
    raw = np.frombuffer(gzip.decompress(base64.b64decode(data)), np.uint8)
    found, at = {}, 0
    for name, kind in head["fields"]:
        dtype = {"u8": np.uint8, "u32": np.uint32, "f32": np.float32}[kind]
        width = np.dtype(dtype).itemsize
        planes = raw[at : at + width * head["rows"]].reshape(width, head["rows"])
        found[name] = np.ascontiguousarray(planes.T).view(dtype).ravel()
        at += width * head["rows"]
    assert at == len(raw)
    return found


def test_packed_columns_come_back_with_four_digits() -> None:
    rows = [*factory.world_rows(), cell(concept="new/spatial", tcav_score=None, n=123_457, note="why")]
    head, data = pack_cells(read_cells(table(rows), factory.LAYERS))
    found = unpack(head, data)
    assert [head["classes"][k] for k in found["class"]] == [r["class"] for r in rows]
    assert [head["columns"][c]["concept"] for c in found["column"]] == [r["concept"] for r in rows]
    assert [head["layers"][k] for k in found["layer"]] == [r["layer"] for r in rows]
    assert [head["texts"]["note"][k] for k in found["note"]] == [r["note"] for r in rows]
    np.testing.assert_allclose(found["effect"], [r["effect"] for r in rows], rtol=1e-4)
    assert np.isnan(found["tcav_score"][-1])
    assert found["n"][-1] == 123_457  # counts stay exact
    assert found["significant"].tolist() == [float(r["significant"]) for r in rows]


@pytest.mark.slow
def test_a_column_that_the_page_does_not_know_is_in_the_data() -> None:
    scores = table([cell()]).append_column("brand_new", pa.array([0.25]))
    facts = Page(build_report(report_data(scores=scores))).facts()
    assert ["brand_new", "f32"] in facts["fields"]


@pytest.mark.slow
def test_the_same_data_gives_the_same_bytes(html: str) -> None:
    assert build_report(report_data()) == html


def test_each_videos_sensitivity_finds_its_cell() -> None:
    rows = [cell(concept="a/spatial"), cell(concept="a/spatial", against="b/spatial"), cell(concept="b/spatial")]
    cells = read_cells(table(rows), ["late"])
    found = [("lift", "late", "b/spatial", "v1", 2.0), ("lift", "late", "a/spatial", "v2", -1.0)]
    found += [("nobody", "late", "a/spatial", "v3", 9.0), ("lift", "late", "b/spatial", "v2", 0.5)]
    names = factory.SENSITIVITIES.names
    sensitivities = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in found], factory.SENSITIVITIES)
    head, data = pack_videos(cells, sensitivities)
    packed = unpack(head, data)
    concept_of = [cells.columns[c].concept for c in cells.column_N]
    against_of = [cells.columns[c].against for c in cells.column_N]
    read = [
        (concept_of[c], against_of[c], head["videos"][v], float(s))
        for c, v, s in zip(packed["cell"], packed["video"], packed["sensitivity"], strict=True)
    ]
    assert sorted(read) == [
        ("a/spatial", "random", "v2", -1.0),
        ("b/spatial", "random", "v1", 2.0),
        ("b/spatial", "random", "v2", 0.5),
    ]
    assert head["complete"]


def test_too_many_videos_keep_the_strongest_cells_whole() -> None:
    rows = [cell(concept=f"c{k}/spatial", z=float(k)) for k in range(5)]
    head, data = pack_videos(read_cells(table(rows), ["late"]), factory.sensitivities(rows), limit=70)
    assert (head["rows"], head["complete"]) == (60, False)
    assert set(unpack(head, data)["cell"]) == {3, 4}


@pytest.mark.slow
def test_each_cells_null_is_its_own_whatever_the_tables_order() -> None:
    rows = factory.world_rows()
    cells = read_cells(table(rows), factory.LAYERS)
    nulls = factory.nulls(rows)
    order = np.random.default_rng(0).permutation(nulls.num_rows)[3:]  # three cells have no null
    head, data = pack_nulls(cells, nulls.take(pa.array(order)))
    packed = unpack(head, data)
    assert head["rows"] == len(rows)
    for name in ("effect", "score"):
        heights = np.stack([packed[f"{name}{i}"] for i in range(head["bins"][name])], axis=1)
        kept = np.isin(np.arange(len(rows)), order)
        assert (heights[~kept] == 0).all()
        counts = np.array(nulls[f"{name}_counts"].to_pylist(), float)[kept]
        np.testing.assert_allclose(heights[kept] / 31, counts / counts.max(axis=1, keepdims=True), atol=1 / 31)
        assert ((heights[kept] > 0) == (counts > 0)).all()  # a single extreme permutation stays visible
    np.testing.assert_allclose(packed["unit"][kept], nulls["effect_unit"].to_numpy()[kept], rtol=1e-4)
    assert np.isnan(packed["unit"][~kept]).all()


def test_a_run_without_nulls_has_none_in_its_page() -> None:
    rows = [cell()]
    head, data = pack_nulls(read_cells(table(rows), ["late"]), None)
    assert head["rows"] == 0
    assert all(len(values) == 0 for values in unpack(head, data).values())
    empty = factory.nulls(rows).set_column(5, "effect_counts", pa.array([[]], pa.list_(pa.int32())))
    head, data = pack_nulls(read_cells(table(rows), ["late"]), empty)
    assert [unpack(head, data)[f"effect{i}"].tolist() for i in range(24)] == [[0]] * 24

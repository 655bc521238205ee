"""review.csv is read, written and edited by hand, and the error for a mistake names its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtcav_ray.clips.decisions import (
    FILE,
    Decision,
    Decisions,
    Subject,
    format_decisions,
    parse_decisions,
    read_decisions,
)
from vtcav_ray.errors import ConfigError
from vtcav_ray.store.folder import Folder

HEAD = "set,name,clip_id,decision,note\n"
CUP = Subject("concept", "cup/spatial")
CLIP = Subject("concept", "cup/spatial", "concept/cup/spatial/a, b.mp4#1@8")


def test_a_clips_own_decision_counts_more_than_its_concepts() -> None:
    decisions = Decisions().changed([(CUP, "reject"), (CLIP, "accept")])
    assert decisions.verdict("concept", "cup/spatial", CLIP.clip_id) == "accept"
    assert decisions.verdict("concept", "cup/spatial", "another") == "reject"
    assert decisions.verdict("class", "cup/spatial", "another") is None
    back = decisions.changed([(CLIP, None)])
    assert back.verdict("concept", "cup/spatial", CLIP.clip_id) == "reject"
    assert len(decisions) == 2  # the original does not change


text = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zs", "Zl", "Zp")), min_size=1)
names = st.builds(Subject, st.sampled_from(["concept", "class", "random"]), text, st.just("") | text)


@pytest.mark.slow
@given(st.lists(st.builds(Decision, names, st.sampled_from(["accept", "reject"]), text | st.just("")), max_size=20))
def test_what_is_written_is_read_again(rows: list[Decision]) -> None:
    decisions = Decisions({d.subject.key: d for d in rows})
    assert parse_decisions(format_decisions(decisions)) == decisions


def test_a_file_from_a_spreadsheet_is_understood(tmp_path: object) -> None:
    folder = Folder(str(tmp_path))
    folder.write_bytes(
        "review.csv",
        b"\xef\xbb\xbfDecision,SET,name,clip_id\r\nReject ,concept,cup/spatial,\r\n,,,\r\n\r\naccept,,,some clip\r\n",
    )
    decisions = read_decisions(folder)
    assert decisions.verdict("concept", "cup/spatial", "x") == "reject"
    assert decisions.verdict("concept", "cup/spatial", "some clip") == "accept"
    assert read_decisions(folder.below("nowhere")) == Decisions()


def test_decisions_live_on_any_storage() -> None:
    folder = Folder("memory://review-test/run")
    assert read_decisions(folder) == Decisions()
    wanted = Decisions().changed([(CUP, "accept"), (CLIP, "reject")])
    folder.write_bytes(FILE, format_decisions(wanted).encode())
    assert read_decisions(folder) == wanted


def test_notes_stay_as_long_as_a_decision_does(tmp_path: object) -> None:
    folder = Folder(str(tmp_path))
    noted = Decisions({CLIP.key: Decision(CLIP, "reject", 'a "bowl", not a cup')})
    changed = noted.changed([(CLIP, "accept"), (CUP, "accept")])
    folder.write_bytes(FILE, format_decisions(changed).encode())
    assert read_decisions(folder).rows()[1] == Decision(CLIP, "accept", 'a "bowl", not a cup')


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (HEAD + "concept,cup/spatial,,keep,\n", ["line 2", "'keep'", "`accept` or `reject`"]),
        (HEAD + "\nconcept,cup,a b,c,accept,x\n", ["line 3", "6 fields", "double quotes"]),
        (HEAD + "concept,cup/spatial,,\n", ["line 2", "4 fields"]),
        (HEAD + "concpt,cup/spatial,,reject,\n", ["line 2", "concept, class, random"]),
        (HEAD + "concept,,,reject,\n", ["line 2", "a name"]),
        (HEAD + "a,b,c1,accept,\nx,y,c1,reject,\n", ["line 3", "rejected here", "line 2", "Delete one"]),
        ("set,name,clip,decision\n", ["first line", "'clip'", "did you mean `clip_id`"]),
        ("set,name,decision\n", ["first line", "no column clip_id"]),
        ("set;name;clip_id;decision;note\n", ["semicolons", "with commas"]),
        (HEAD + 'concept,"cup,,reject,\n', ["CSV", "double quotes"]),
    ],
)
def test_a_slip_names_its_line_and_the_fix(content: str, fragments: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_decisions(content, "runs/x/review.csv")
    for fragment in ["runs/x/review.csv", *fragments]:
        assert fragment in str(raised.value)


def test_bytes_that_are_no_text_are_reported(tmp_path: object) -> None:
    folder = Folder(str(tmp_path))
    folder.write_bytes("review.csv", HEAD.encode() + b"concept,\xff,,reject,\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_decisions(folder)


def test_only_what_changes_the_clips_is_in_the_key() -> None:
    accepted = Decisions().changed([(CUP, "accept"), (CLIP, "accept")])
    assert accepted.effective() == Decisions().effective() == []
    assert accepted.effective(undecided_count=False) != []
    rejected = Decisions().changed([(CUP, "reject")])
    assert rejected.effective() != rejected.changed([(CLIP, "accept")]).effective()
    noted = Decisions({CUP.key: Decision(CUP, "reject", "why")})
    assert noted.effective() == rejected.effective()

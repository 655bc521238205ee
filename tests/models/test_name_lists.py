"""Lists of names as other people have them, and names in other spellings."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from vtcav_ray.clips.classes import plan_classes, same_class
from vtcav_ray.config import ClipsConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.models.config_files import read_labels
from vtcav_ray.text.name_lists import BadNames, NameIndex, as_numbers, read_name_list
from vtcav_ray.tracks.detector_files import read_names

NAMES = ["abseiling", "petting animal (not cat)", "massaging person's head"]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("separator", [" ", "\t", ",", ", ", "; ", ": ", "  "])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_numbered_lists(first: int, separator: str, mark: str, end: str) -> None:
    lines = [f"{i}{separator}{name}" for i, name in enumerate(NAMES, start=first)]
    assert read_name_list((mark + end.join(lines) + end).encode()) == NAMES
    assert read_name_list((mark + end.join(reversed(lines))).encode()) == NAMES  # the numbers count, not the lines


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("\n".join(NAMES), "a.txt"),
        ("id,name\n" + "\n".join(f"{i},{name}" for i, name in enumerate(NAMES)), "kinetics_400_labels.csv"),
        ("name,id\n" + "\n".join(f"{name},{i}" for i, name in enumerate(NAMES)), "a.csv"),
        ("\n".join(f"{name},{i}" for i, name in enumerate(NAMES)), "a.csv"),
        ("\n".join(f'"{name}"' for name in NAMES), "a.txt"),
        (json.dumps(NAMES), "a.json"),
        (json.dumps({f'"{name}"': i for i, name in enumerate(NAMES)}), "kinetics_classnames.json"),
        (json.dumps({name: str(i) for i, name in enumerate(NAMES)}), "labels.json"),
        (json.dumps({str(i): name for i, name in enumerate(NAMES)}), "a.txt"),
        ("path: x\nnames:\n" + "".join(f"  {i}: {json.dumps(n)}\n" for i, n in enumerate(NAMES)), "data.yaml"),
        ("names: " + json.dumps(NAMES), "names.txt"),
    ],
)
def test_every_form_of_a_list(text: str, file: str) -> None:
    assert read_name_list(text.encode(), file) == NAMES


def test_names_that_begin_with_numbers_stay_names() -> None:
    for names in (["2 cups", "3 balls"], ["100 metres", "cup"], ["[a]", "[b]"], ["1 cup", "2 cups", "4 cups"]):
        assert read_name_list("\n".join(names).encode()) == names


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no names"),
        (b"cup\nball\ncup\n", "twice: cup"),
        ("é\ne\u0301\n".encode(), "twice"),
        (b"\xff\xfea\x00", "UTF-8"),
        (b"cup\nba\x07ll\n", "no name in place 2"),
        (b"names:\n  a: [1]\n", "neither a list of names"),
        (b"names: {0: a, 2: b}\n", "without gaps"),
        (b"id,name\n0,a\n5,b\n", "without gaps"),
    ],
)
def test_what_is_no_list_is_reported(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadNames, match=message):
        read_name_list(data)
    path = tmp_path / "names.txt"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=rf"tracks\.names.*names\.txt.*{message}"):
        read_names(str(path))
    with pytest.raises(ConfigError, match=rf"names\.txt.*{message}"):
        read_labels(str(path))


@pytest.mark.parametrize(
    "spelling",
    ["massaging_persons_head", "massaging person's head", "Massaging-Persons-Head", "MassagingPersonsHead",
     "massaging_person_s_head", "massaging person\u2019s head"],
)  # fmt: skip
def test_spellings_of_one_class(spelling: str) -> None:
    assert NameIndex(NAMES).spelling(spelling) == NAMES[2]
    assert same_class(spelling, NAMES[2])


def test_spellings_never_join_two_classes() -> None:
    known = NameIndex(["C", "C++", "C#", "a-b", "a b", "café"])
    assert [known.spelling(n) for n in ("C", "C++", "C#", "a-b", "a b")] == ["C", "C++", "C#", "a-b", "a b"]
    assert known.spelling("a_b") is None  # it could be either
    assert known.spelling("c") == "C"
    assert known.spelling(unicodedata.normalize("NFD", "café")) == "café"
    assert known.spelling("...") is None
    assert not same_class("C", "C++")


def classes(names: list[str], *labels: str) -> tuple[set[str], list[str]]:
    videos = [(f"{label}/{i}", f"{label}/{i}.mp4", label) for label in labels for i in range(6)]
    plan = plan_classes(videos, ClipsConfig(), 0, names)
    return set(plan.label_of.values()), plan.warnings


def test_labels_get_the_models_spelling_and_unknown_ones_are_listed_with_the_nearest() -> None:
    found, warnings = classes(NAMES, "massaging_persons_head", "petting_animal_not_cat", "abselling")
    assert found == {NAMES[1], NAMES[2], "abselling"}
    assert any("'abselling' (nearest: 'abseiling')" in warning for warning in warnings)


@pytest.mark.parametrize(("labels", "first"), [(("0", "2"), 0), (("1", "2"), 0), (("1", "3"), 1)])
def test_labels_that_are_numbers_are_places_in_the_list_of_classes(labels: tuple[str, ...], first: int) -> None:
    found, warnings = classes(NAMES, *labels)
    assert found == {NAMES[int(label) - first] for label in labels}
    assert any(f"from {first}" in warning for warning in warnings)


def test_labels_that_are_numbers_beyond_the_classes_stay(tmp_path: Path) -> None:
    assert classes(NAMES, "7", "8")[0] == {"7", "8"}
    assert classes(["7", "8"], "7", "8")[0] == {"7", "8"}  # names, and no places


def test_whole_numbers_of_pandas() -> None:
    assert as_numbers(["0.0", None, "12.0"]) == ["0", None, "12"]
    assert as_numbers(["0.5", "1.0"]) == ["0.5", "1.0"]
    assert as_numbers(["v1.0", "2.0"]) == ["v1.0", "2.0"]

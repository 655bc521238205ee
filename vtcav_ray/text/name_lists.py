"""Lists of names from outside: one reader for files of class names, one way to compare names.

Files of class names come as plain lines, as numbered lines (`0 cup`, `1<TAB>cup`, `2,cup`), as a small table with a
header (`id,name`), and as YAML or JSON (`names:` of a data set, a list, or a mapping between numbers and names).

Names are compared in steps, from exact to loose: as they are; in Unicode's composed form (NFC) with single spaces;
without case, `_` and `-`; and without spaces and punctuation. A looser step counts only where it names ONE of the list.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vtcav_ray.text.bounded_text import UnreadableText, read_json, read_yaml

MOST_NAME = 500  # characters
_NUMBERED = re.compile(r"(\d{1,9})(?:\s*[,;:\t]\s*|[.)]\s+|\s+)(\S.*)")
_NUMBERED_LAST = re.compile(r"(.*\S)\s*[,;\t]\s*(\d{1,9})")
_HEADER = re.compile(
    r"(?i)\W*(id|index|idx|number|label_?id|class_?id|classid)\W+(name|label|class|class_?name|display_?name)\W*"
)
_HEADER_LAST = re.compile(
    r"(?i)\W*(name|label|class|class_?name|display_?name)\W+(id|index|idx|number|label_?id|class_?id)\W*"
)
_YAML = re.compile(r"(?m)^(names|classes)\s*:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MEANT = "#%&@*"  # which Unicode calls punctuation, and names use as symbols
_WORDS_APART = re.compile(r"(?<=[a-z])(?=[A-Z])")


class BadNames(ValueError):
    """The file is not a list of names. The message is a clause about the file."""


def decoded(data: bytes) -> str:
    """Return the text of a UTF-8 file without a byte order mark.

    Raises:
        BadNames: it is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadNames("is not UTF-8 text. Save it as UTF-8") from error


def lines_of(text: str) -> list[str]:
    """Split at line ends alone; `str.splitlines` also splits inside names that hold rare separators."""
    return re.split(r"\r\n|\n|\r", text)


def read_name_list(data: bytes, file: str = "") -> list[str]:
    """Read class names in the order of their numbers.

    Args:
        data: the file's bytes.
        file: its name; `.yaml`, `.yml` and `.json` are read as such.

    Raises:
        BadNames: it is not UTF-8 text, holds no names, a name twice, numbers with gaps, or something that is no name.
    """
    text = decoded(data)
    suffix = file.lower().rpartition(".")[2]
    if suffix in ("yaml", "yml") or _YAML.search(text) is not None:
        names = _of_data(_parsed(text, read_yaml, "YAML"))
    elif suffix == "json" or (text.lstrip()[:1] in ("[", "{") and text.rstrip()[-1:] in ("]", "}")):
        names = _of_json(text, sure=suffix == "json")
    else:
        names = _of_lines(text)
    names = [unquoted(name) for name in names]
    _check(names)
    return names


def unquoted(name: str) -> str:
    """Remove spaces and double quotes around a name; Kinetics' own list has both."""
    name = name.strip()
    return name[1:-1].strip() if len(name) > 2 and name[0] == name[-1] == '"' else name


def repeated(names: Iterable[str]) -> list[str]:
    """Return the names that occur twice, in Unicode's composed form."""
    counts = Counter(composed(name) for name in names)
    return [name for name, count in counts.items() if count > 1]


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), with single spaces. macOS writes file names decomposed."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def spoken(name: str) -> str:
    """Return a name without case, `_` and `-`: `arm_wrestling`, `Arm-Wrestling` and `arm wrestling` become equal."""
    return " ".join(composed(name).replace("_", " ").replace("-", " ").casefold().split())


def letters(name: str) -> str:
    """Return a name without spaces and punctuation: `massaging person's head` equals `massaging_persons_head`.

    Symbols stay: C, C++ and C# are three names.
    """
    return "".join(c for c in spoken(name) if c.isalnum() or unicodedata.category(c)[0] in "MS" or c in _MEANT)


_STEPS: tuple[Callable[[str], str], ...] = (str, composed, spoken, letters)


class NameIndex:
    """The places of a list of names, found by any of their spellings.

    Args:
        names: unique names.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._found: list[dict[str, int | None]] = []  # per step; None: of several names
        for step in _STEPS:
            places: dict[str, int | None] = {}
            for place, name in enumerate(self.names):
                key = step(name)
                places[key] = None if key in places and places[key] != place else place
            self._found.append(places)

    def __contains__(self, name: str) -> bool:
        return self.place(name) is not None

    def place(self, name: str) -> int | None:
        """Return the place of a name in the list, or None if it is none of them, or could be several."""
        for step, places in zip(_STEPS, self._found, strict=True):
            key = step(name)
            if key and key in places:
                return places[key]
        return None

    def spelling(self, name: str) -> str | None:
        """Return the name as the list spells it; None as for `place`."""
        place = self.place(name)
        return None if place is None else self.names[place]

    def nearest(self, name: str) -> str | None:
        """Return the name that looks most like it; None if none does."""
        known = {spoken(other): other for other in self.names}
        near = difflib.get_close_matches(spoken(_WORDS_APART.sub(" ", name)), list(known), n=1)
        return known[near[0]] if near else None


def same_name(one: str, other: str) -> bool:
    """Return whether two names are spellings of one, by the loosest step that leaves something to compare."""
    return spoken(one) == spoken(other) or (bool(letters(one)) and letters(one) == letters(other))


def without_nearest(unmatched: Sequence[str], known: NameIndex, most: int = 5) -> str:
    """Return unmatched names as text, each with the nearest known one."""
    shown = []
    for name in unmatched[:most]:
        near = known.nearest(name)
        shown.append(f"{name!r} (nearest: {near!r})" if near is not None else repr(name))
    return ", ".join(shown) + (f", and {len(unmatched) - most} more" if len(unmatched) > most else "")


def as_numbers(labels: Sequence[str | None]) -> list[str | None]:
    """Return labels with `3.0` as `3`, where all are such: pandas writes whole numbers so if one is missing."""
    given = [label for label in labels if label]
    if not given or not all(re.fullmatch(r"\d{1,9}(\.0+)?", label) for label in given):
        return list(labels)
    if not any("." in label for label in given):
        return list(labels)
    return [label.partition(".")[0] if label else label for label in labels]


def _parsed(text: str, read: Callable[[str], Any], kind: str) -> Any:
    try:
        return read(text)
    except UnreadableText as error:
        raise BadNames(f"is not readable as {kind}: {error}") from error


def _of_json(text: str, *, sure: bool) -> list[str]:
    try:
        return _of_data(read_json(text))
    except UnreadableText as error:
        if sure:
            raise BadNames(f"is not readable as JSON: {error}") from error
        return _of_lines(text)  # labels of Something-Something are full of brackets


def _of_data(data: Any) -> list[str]:
    """Return the names of a list, of a mapping between numbers and names, or of a key `names` or `classes`."""
    if isinstance(data, Mapping):
        for key in ("names", "classes"):
            if isinstance(data.get(key), list | Mapping):
                data = data[key]
                break
    if isinstance(data, list):
        if not all(isinstance(name, str | int) and not isinstance(name, bool) for name in data):
            raise BadNames("has something else than names in its list")
        return [str(name) for name in data]
    if isinstance(data, Mapping) and data:
        if all(_number(key) is not None for key in data) and all(isinstance(v, str) for v in data.values()):
            return _in_order([(int(str(key)), str(name)) for key, name in data.items()])
        if all(_number(value) is not None for value in data.values()):
            return _in_order([(int(str(number)), str(name)) for name, number in data.items()])
    raise BadNames("has neither a list of names nor a mapping between numbers and names (such as `names:`)")


def _number(value: Any) -> int | None:
    text = str(value)
    return int(text) if not isinstance(value, bool) and re.fullmatch(r"\d{1,9}", text) else None


def _of_lines(text: str) -> list[str]:
    lines = [line.strip() for line in lines_of(text) if line.strip()]
    for pattern, header, order in ((_NUMBERED, _HEADER, 1), (_NUMBERED_LAST, _HEADER_LAST, -1)):
        body = lines[1:] if lines and header.fullmatch(lines[0]) else lines
        found = [pattern.fullmatch(line) for line in body]
        pairs = [m.groups()[::order] for m in found if m is not None]
        if not body or len(pairs) != len(body):
            continue
        numbers = sorted(int(number) for number, _ in pairs)
        if len(body) < len(lines) or (
            numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(body)))
        ):
            return _in_order([(int(number), name) for number, name in pairs])
    return lines


def _in_order(pairs: list[tuple[int, str]]) -> list[str]:
    pairs = sorted(pairs)
    numbers = [number for number, _ in pairs]
    if numbers[0] not in (0, 1) or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise BadNames(
            f"numbers its names {numbers[0]} to {numbers[-1]}, with {len(numbers)} names: number them from 0 or 1, "
            "without gaps"
        )
    return [name for _, name in pairs]


def _check(names: list[str]) -> None:
    if not names:
        raise BadNames("has no names. Give one per line")
    for place, name in enumerate(names, start=1):
        if not name or len(name) > MOST_NAME or _CONTROL.search(name):
            raise BadNames(f"has something that is no name in place {place}: {name[:80]!r}. Give one name per line")
    if twice := repeated(names):
        raise BadNames(f"has names twice: {', '.join(twice[:5])}. Make them differ")

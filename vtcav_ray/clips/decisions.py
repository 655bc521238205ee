"""A person's decisions about concepts and clips: `RUN/review.csv`, one decision per row, editable by hand.

    set,name,clip_id,decision,note
    concept,cup/spatial,,accept,
    concept,cup/spatial,concept/cup/spatial/0012.mp4#1@8,reject,a bowl
    class,lift,class/lift/0031.mp4,reject,

A cell that a spreadsheet would read as a formula (`=...`) is written with a leading single quote, which is not part of
it.

A row with a clip_id is about that clip; its set and name only inform the reader. A row without one is about all clips
of `name` (a concept is `<name>/<kind>`, a class its label, random clips are `random/<kind>`). A clip's own row takes
precedence over its concept's row.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from vtcav_ray.errors import ConfigError
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.swap import swap
from vtcav_ray.text.csv_text import as_text, csv_line, from_text

FILE = "review.csv"
COLUMNS = ("set", "name", "clip_id", "decision", "note")
NEEDED = ("set", "name", "clip_id", "decision")
SETS = ("concept", "class", "random")
Verdict = Literal["accept", "reject"]
VERDICTS: tuple[Verdict, ...] = ("accept", "reject")


@dataclass(frozen=True, order=True)
class Subject:
    """The subject of a decision: a clip, or all clips of a name if `clip_id` is empty."""

    set: str
    name: str
    clip_id: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """Identity of the subject: for a clip, its id alone."""
        return (self.clip_id,) if self.clip_id else (self.set, self.name)


@dataclass(frozen=True)
class Decision:
    """One row of the file."""

    subject: Subject
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True)
class Decisions:
    """All decisions of a run, at most one per subject. Immutable: every change returns a new instance."""

    by_key: Mapping[tuple[str, ...], Decision] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.by_key)

    def rows(self) -> list[Decision]:
        """Return the decisions in the order of the file."""
        return sorted(self.by_key.values(), key=lambda d: d.subject)

    def of(self, subject: Subject) -> Decision | None:
        """Return the subject's own decision, or None."""
        return self.by_key.get(subject.key)

    def verdict(self, set_: str, name: str, clip_id: str) -> Verdict | None:
        """Return the verdict for a clip: its own, else that of its name, else None (undecided)."""
        own = self.by_key.get((clip_id,)) or self.by_key.get((set_, name))
        return own.verdict if own is not None else None

    def changed(self, changes: Iterable[tuple[Subject, Verdict | None]]) -> Decisions:
        """Return a copy with these decisions set, or removed (None). A note stays as long as its subject is decided."""
        by_key = dict(self.by_key)
        for subject, verdict in changes:
            before = by_key.pop(subject.key, None)
            if verdict is not None:
                by_key[subject.key] = Decision(subject, verdict, before.note if before is not None else "")
        return Decisions(by_key)

    def effective(self, *, undecided_count: bool = True) -> list[list[str]]:
        """Return the decisions that can change which clips are used, sorted, without notes: the input to a stage's key.

        Args:
            undecided_count: whether undecided clips are used. If so, accepting a clip changes nothing unless its name
                is rejected.
        """
        rejects_names = any(not d.subject.clip_id and d.verdict == "reject" for d in self.by_key.values())
        return sorted(
            [*d.subject.key, d.verdict]
            for d in self.by_key.values()
            if not undecided_count or d.verdict == "reject" or (d.subject.clip_id and rejects_names)
        )


def parse_decisions(text: str, where: str = FILE) -> Decisions:
    """Parse the CSV.

    Raises:
        ConfigError: the message names the file, the line, and how to fix it.
    """
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    by_key: dict[tuple[str, ...], Decision] = {}
    line_of: dict[tuple[str, ...], int] = {}
    columns: list[str] | None = None
    try:
        for fields in lines:
            if not any(f.strip() for f in fields):
                continue
            if columns is None:
                columns = _header(fields, where)
                continue
            decision = _decision(fields, columns, f"{where}, line {lines.line_num}")
            key = decision.subject.key
            if key in by_key and by_key[key].verdict != decision.verdict:
                raise ConfigError(
                    f"{where}, line {lines.line_num}: {' '.join(key)!r} is {decision.verdict}ed here and "
                    f"{by_key[key].verdict}ed in line {line_of[key]}. Delete one of the two lines."
                )
            by_key[key], line_of[key] = decision, lines.line_num
    except csv.Error as error:
        raise ConfigError(
            f"{where}, line {lines.line_num}: not readable as CSV ({error}). Put a field that holds a comma or a quote "
            "between double quotes, and double the quotes inside it."
        ) from error
    return Decisions(by_key)


def _header(fields: list[str], where: str) -> list[str]:
    columns = [f.strip().lower() for f in fields]
    wanted = ",".join(COLUMNS)
    if len(columns) == 1 and ";" in columns[0]:
        raise ConfigError(f"{where}: its columns are separated by semicolons. Save it with commas, as `{wanted}`.")
    for name in columns:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"the first line has to be `{wanted}`."
            raise ConfigError(f"{where}, first line: unknown column {name!r}; {hint}")
    if missing := [name for name in NEEDED if name not in columns]:
        raise ConfigError(f"{where}, first line: no column {', '.join(missing)}. It has to be `{wanted}`.")
    return columns


def _decision(fields: list[str], columns: list[str], where: str) -> Decision:
    if len(fields) != len(columns):
        raise ConfigError(
            f"{where}: {len(fields)} fields, and the first line has {len(columns)} columns. Put a field that holds a "
            "comma between double quotes."
        )
    row = {name: from_text(value.strip()) for name, value in zip(columns, fields, strict=True)}
    verdict = row["decision"].lower()
    for known in VERDICTS:
        if verdict == known:
            break
    else:
        raise ConfigError(f"{where}: decision {row['decision']!r}; write `accept` or `reject`, or delete the line.")
    if not row["clip_id"] and (row["set"] not in SETS or not row["name"]):
        raise ConfigError(
            f"{where}: set {row['set']!r}, name {row['name']!r}. A line without a clip_id is about all clips of a "
            f"name: it needs a set ({', '.join(SETS)}) and a name, for example `concept,cup/spatial,,reject,`."
        )
    return Decision(Subject(row["set"], row["name"], row["clip_id"]), known, row.get("note", ""))


def format_decisions(decisions: Decisions) -> str:
    """Format decisions as CSV. Equal decisions give equal text, and `parse_decisions` restores them."""
    return csv_line(COLUMNS) + "".join(decision_line(d) for d in decisions.rows())


def decision_line(decision: Decision) -> str:
    """Format one decision as a line of the file."""
    subject = decision.subject
    cells = (subject.set, subject.name, subject.clip_id, decision.verdict, decision.note)
    return csv_line([as_text(cell) for cell in cells])


def read_decisions(run: Folder) -> Decisions:
    """Read the decisions of a run; empty if the file does not exist.

    Raises:
        ConfigError: the file is malformed.
    """
    try:
        data = run.read_bytes(FILE)
    except FileNotFoundError:
        return Decisions()
    return _decoded(run, data)


def change_decisions(run: Folder, change: Callable[[Decisions], Decisions]) -> tuple[Decisions, Decisions]:
    """Change the file, safely while others change it: no change is lost.

    On a local disk, a lock is held during the change. On an object store, the new file is written on the condition that
    the old one has not changed since it was read; otherwise it is read again. Readers see all of a file or none.

    Args:
        change: computes the new decisions from those in the file. Called again if another writer was faster.

    Returns:
        (decisions before, decisions after).

    Raises:
        ConfigError: the file is malformed; it is not changed.
        ConnectionError: other writers were faster each time, or storage does not answer.
    """
    made: tuple[Decisions, Decisions] = (Decisions(), Decisions())

    def replace(data: bytes | None) -> bytes:
        nonlocal made
        before = Decisions() if data is None else _decoded(run, data)
        made = before, change(before)
        return format_decisions(made[1]).encode()

    swap(run, FILE, replace)
    return made


def _decoded(run: Folder, data: bytes) -> Decisions:
    where = f"{run.url.rstrip('/')}/{FILE}"
    try:
        return parse_decisions(data.decode("utf-8-sig"), where)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from error

"""A review session: make, undo and store decisions, while the file may also be edited by hand."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from vtcav_ray.clips.decisions import SETS, VERDICTS, Decisions, Subject, Verdict, change_decisions, read_decisions
from vtcav_ray.review.clip_groups import ClipGroups, Group, siblings
from vtcav_ray.store.folder import Folder

Changes = list[tuple[Subject, Verdict | None]]
MAX_CHANGES = 5000


class Session:
    """Decisions about the clips of a run. Each is written to the run's `review.csv` at once.

    The file is read again before each change, so entries that were made in the meantime, by hand or by another server
    on the same run, are kept. Undo goes back to the start of the session.
    """

    def __init__(self, wall: ClipGroups, run: Folder) -> None:
        self.wall, self._run = wall, run
        self._undo: list[Changes] = []
        self._lock = threading.Lock()
        self._siblings = siblings(wall.groups)
        self._last = read_decisions(run)

    def state(self) -> dict[str, Any]:
        """Return everything that the page needs at its start."""
        with self._lock:
            self._last = read_decisions(self._run)
            return {
                "title": self.wall.title,
                "run": self._run.url,
                "key": self.wall.key,
                "groups": [_group(group) for group in self.wall.groups],
                "siblings": {clip: others for clip, others in self._siblings.items() if others},
                "decisions": _rows(self._last),
                "undo": len(self._undo),
            }

    def decide(self, asked: Any) -> dict[str, Any]:
        """Make the decisions of `{"changes": [{"set", "name", "clip_id", "verdict"}, ...]}`. Null removes a verdict.

        Raises:
            ValueError: the request is not of this form.
            ConfigError: `review.csv` was edited by hand and is malformed.
        """
        changes = _changes(asked)
        with self._lock:
            before, answer = self._change(changes)
            back: Changes = [(s, None if (old := before.of(s)) is None else old.verdict) for s, _ in changes]
            self._undo.append(back)
            return {**answer, "undo": len(self._undo)}

    def undo(self) -> dict[str, Any]:
        """Undo the last decisions of this session."""
        with self._lock:
            if not self._undo:
                return {"decisions": _rows(read_decisions(self._run)), "undo": 0}
            # Forget the step only after it is written, so that it can be retried after a failure.
            _, answer = self._change(self._undo[-1])
            undone = self._undo.pop()
            return {**answer, "undone": undone[0][0].clip_id or undone[0][0].name, "undo": len(self._undo)}

    def _change(self, changes: Changes) -> tuple[Decisions, dict[str, Any]]:
        """Return (previous decisions, response for the page)."""
        before, after = change_decisions(self._run, lambda found: found.changed(changes))
        edited = before != self._last
        self._last = after
        # The page knows its own changes. Send all decisions only if the file was also changed elsewhere.
        if edited:
            return before, {"decisions": _rows(after)}
        return before, {"changes": [[s.set, s.name, s.clip_id, verdict] for s, verdict in changes]}


def _changes(asked: Any) -> Changes:
    rows = asked.get("changes") if isinstance(asked, dict) else None
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_CHANGES:
        raise ValueError(f"changes: a list of 1 to {MAX_CHANGES}")
    changes: Changes = []
    for row in rows:
        set_, name, clip_id = (row.get(c) for c in ("set", "name", "clip_id")) if isinstance(row, dict) else (None,) * 3
        if set_ not in SETS or not isinstance(name, str) or not name or not isinstance(clip_id, str):
            raise ValueError("each change: set, name and clip_id (empty: all of the name), strings")
        verdict = row.get("verdict")
        if verdict is not None and verdict not in VERDICTS:
            raise ValueError("verdict: accept, reject or null")
        changes.append((Subject(set_, name, clip_id), verdict))
    return changes


def _rows(decisions: Decisions) -> list[list[str]]:
    return [[d.subject.set, d.subject.name, d.subject.clip_id, d.verdict] for d in decisions.rows()]


def _group(group: Group) -> dict[str, Any]:
    columns: Sequence[str] = ("clip_id", "video_id", "object", "motion", "first", "last", "height", "width")
    return {
        "set": group.set,
        "name": group.name,
        "kind": group.kind,
        "clips": [[getattr(clip, column) for column in columns] for clip in group.clips],
    }

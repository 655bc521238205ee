"""The contact sheet: one static HTML file with all clips, for machines where no port can be opened."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vtcav_ray.clips.decisions import COLUMNS, Decision, Decisions, Subject, decision_line
from vtcav_ray.errors import InputError
from vtcav_ray.pages import Shell, asset, stream
from vtcav_ray.report.previews import Preview
from vtcav_ray.review.clip_groups import Clip, ClipGroups, Group
from vtcav_ray.review.page import ROOM
from vtcav_ray.text.csv_text import csv_line

MAX_SIDE = 112  # pixels per preview side: 160 concepts of 30 clips stay under 100 MB
WORDS = {"concept": "Concept", "class": "Class examples", "random": "Random clips"}


@dataclass(frozen=True)
class SheetClip:
    """A clip on the sheet. `verdict`: accept, reject or empty; `preview`: None if the frames don't decode."""

    clip: Clip
    place: int
    verdict: str
    description: str
    preview: Preview | None
    problem: str = ""


@dataclass(frozen=True)
class SheetGroup:
    """A group on the sheet. `clips` is a one-time iterator that makes the previews on the way."""

    group: Group
    words: str
    videos: int
    shown: int
    clips: Iterator[SheetClip]


def sheet_parts(groups: ClipGroups, decisions: Decisions, run_url: str, clips_each: int) -> Iterator[str]:
    """Build the file piece by piece, with only one group's previews in memory.

    Args:
        groups: the clips to show.
        decisions: the verdicts to show on the clips.
        run_url: URL of the run folder.
        clips_each: maximum number of clips per group; the sheet also gives the total.
    """
    return stream(
        ROOM,
        "contact_sheet.html",
        shell=Shell(f"{groups.title} · contact sheet", [asset(ROOM, "review.css")], images=True, body_class="sheet"),
        title=groups.title,
        run_url=run_url,
        total=sum(len(group.clips) for group in groups.groups),
        example=_example(groups),
        contents=[(group.name, len(group.clips)) for group in groups.groups],
        groups=(_group(groups, group, decisions, clips_each) for group in groups.groups),
    )


def _example(groups: ClipGroups) -> str:
    lines = [csv_line(COLUMNS)]
    for group in groups.groups[:1]:
        lines.append(decision_line(Decision(Subject(group.set, group.name), "reject", "shows something else")))
        clip = Subject(group.set, group.name, group.clips[0].clip_id)
        lines.append(decision_line(Decision(clip, "reject", "blurred")))
    return "".join(lines)


def _group(groups: ClipGroups, group: Group, decisions: Decisions, clips_each: int) -> SheetGroup:
    shown = group.clips[:clips_each]
    return SheetGroup(
        group=group,
        words=WORDS[group.set],
        videos=len({clip.video_id for clip in group.clips}),
        shown=len(shown),
        clips=_clips(groups, shown, [decisions.verdict(group.set, group.name, clip.clip_id) or "" for clip in shown]),
    )


def _clips(groups: ClipGroups, shown: tuple[Clip, ...], verdicts: list[str]) -> Iterator[SheetClip]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding and encoding hold no lock, so threads help
        yield from pool.map(functools.partial(_clip, groups), shown, range(1, len(shown) + 1), verdicts)


def _clip(groups: ClipGroups, clip: Clip, place: int, verdict: str) -> SheetClip:
    try:
        preview = groups.preview(clip.clip_id, MAX_SIDE)
    except InputError as error:
        return SheetClip(clip, place, verdict, describe(clip), None, error.message)
    return SheetClip(clip, place, verdict, describe(clip), preview)


def describe(clip: Clip) -> str:
    """Describe a clip: what it shows, and its frames."""
    what = " ".join(word for word in (clip.object, clip.motion) if word)
    frames = f"frame {clip.first}" if clip.first == clip.last else f"frames {clip.first} to {clip.last}"
    return f"{what}, {frames}" if what else frames

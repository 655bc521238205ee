"""The contact sheet: one static HTML file with everything on it, for those who can't open a port."""

from __future__ import annotations

import base64
import functools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import escape

from vtcav_ray.concepts.decisions import COLUMNS, Decision, Decisions, Subject, decision_line
from vtcav_ray.csv_text import csv_line
from vtcav_ray.errors import InputError
from vtcav_ray.report.words import count
from vtcav_ray.review.page import read_asset
from vtcav_ray.review.wall import Clip, Group, Wall

MAX_SIDE = 112  # pixels, of a preview: 160 concepts of 30 clips stay under 100 MB
WORDS = {"concept": "Concept", "class": "Class examples", "random": "Random clips"}


def sheet_parts(wall: Wall, decisions: Decisions, run_url: str, clips_each: int) -> Iterator[str]:
    """The file, piece by piece: only one group's previews are in memory.

    Args:
        wall: what to show.
        decisions: shown on the clips.
        run_url: of the run folder.
        clips_each: at most so many clips a group; the sheet says how many there are.
    """
    style = read_asset("review.css")
    total = sum(len(group.clips) for group in wall.groups)
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(wall.title)} · contact sheet</title>\n<style>\n{style}</style>\n</head>\n"
        f'<body class="sheet">\n<main>\n<h1>{escape(wall.title)}: contact sheet</h1>\n'
        f"<p>{total:,} clips of <code>{escape(run_url)}</code>, without motion controls, which go with the clip that "
        "they are made from. To reject a clip or a whole concept, write a line into "
        f"<code>{escape(run_url.rstrip('/'))}/review.csv</code>, for example:</p>\n"
        f"<pre>{escape(_example(wall))}</pre>\n"
        f"{_contents(wall)}"
    )
    for number, group in enumerate(wall.groups):
        yield from _group(wall, group, number, decisions, clips_each)
    yield "</main>\n</body>\n</html>\n"


def _example(wall: Wall) -> str:
    lines = [csv_line(COLUMNS)]
    for group in wall.groups[:1]:
        lines.append(decision_line(Decision(Subject(group.set, group.name), "reject", "shows something else")))
        clip = Subject(group.set, group.name, group.clips[0].clip_id)
        lines.append(decision_line(Decision(clip, "reject", "blurred")))
    return "".join(lines)


def _contents(wall: Wall) -> str:
    items = "".join(
        f'<li><a href="#g{n}">{escape(group.name)}</a> <span class="count">{len(group.clips)}</span></li>'
        for n, group in enumerate(wall.groups)
    )
    return f'<nav aria-label="Contents"><ul>{items}</ul></nav>\n'


def _group(wall: Wall, group: Group, number: int, decisions: Decisions, clips_each: int) -> Iterator[str]:
    shown = group.clips[:clips_each]
    videos = len({clip.video_id for clip in group.clips})
    some = f", the first {len(shown)} are shown" if len(shown) < len(group.clips) else ""
    yield (
        f'<section id="g{number}">\n<p class="eyebrow">{WORDS[group.set]} · {escape(group.kind)}</p>\n'
        f"<h2>{escape(group.name)}</h2>\n"
        f'<p>{count(len(group.clips), "clip")} of {count(videos, "source video")}{some}.</p>\n<div class="clips">\n'
    )
    verdicts = [decisions.verdict(group.set, group.name, clip.clip_id) for clip in shown]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding and encoding hold no lock
        yield from pool.map(functools.partial(_figure, wall), shown, range(1, len(shown) + 1), verdicts)
    yield "</div>\n</section>\n"


def _figure(wall: Wall, clip: Clip, place: int, verdict: str | None) -> str:
    try:
        preview = wall.preview(clip.clip_id, MAX_SIDE)
    except InputError as error:
        picture = f'<span class="broken">{escape(error.message)}</span>'
    else:
        data = base64.b64encode(preview.image).decode()
        picture = (
            f'<img src="data:image/webp;base64,{data}" width="{preview.width}" height="{preview.height}" '
            f'decoding="async" alt="clip of {escape(clip.video_id)}">'
        )
    said = f'<span class="verdict">{verdict}ed</span>' if verdict else ""
    return (
        f'<figure class="clip {verdict or ""}"><span class="picture">{picture}{said}</span><figcaption><b>{place}</b> '
        f"{escape(describe(clip))}<code>{escape(clip.clip_id)}</code></figcaption></figure>\n"
    )


def describe(clip: Clip) -> str:
    """What a clip is said to show, and its frames."""
    what = " ".join(word for word in (clip.object, clip.motion) if word)
    frames = f"frame {clip.first}" if clip.first == clip.last else f"frames {clip.first} to {clip.last}"
    return f"{what}, {frames}" if what else frames

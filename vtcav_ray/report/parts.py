"""The parts of the page that are plain HTML: header, banner, summary, the run. Everything from the data is escaped."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import yaml

from vtcav_ray.costs import Hours, price, stage_hours
from vtcav_ray.report import sentences
from vtcav_ray.report.cells import Cells
from vtcav_ray.report.data import ReportData, StageFacts
from vtcav_ray.report.words import count, duration, rate, size
from vtcav_ray.tables import NAMES

MAX_FINDINGS = 12
MAX_FAILURES = 500
MAX_WARNINGS_OPEN = 6

SECTIONS = (
    ("summary", "Summary"),
    ("matrix", "Matrix"),
    ("class", "Classes"),
    ("concepts", "Concepts"),
    ("run", "The run"),
)
# What the main stages count, and the word for its throughput.
THROUGHPUT = {"videos": "videos", "tracks": "tracks", "clips": "clips", "activations": "activations", "cavs": "cavs"}


def header(data: ReportData) -> str:
    links = "".join(f'<li><a href="#{key}">{word}</a></li>' for key, word in SECTIONS)
    if data.gradcam:
        links += f'<li><a href="{escape(data.gradcam)}">Grad-CAM</a></li>'
    return f"""<a class="skip" href="#summary">Skip to the summary</a>
<header class="top">
<div class="bar">
<p class="brand">Video-TCAV <span class="run-name">{escape(data.title)}</span></p>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<button type="button" id="theme" class="quiet" title="Light, dark, or as the system">◐</button>
</div>
</header>
"""


def banner(data: ReportData) -> str:
    if not data.untrained:
        return ""
    names = ", ".join(f"<code>{escape(m)}</code>" for m in data.models)
    return f"""<div class="banner" role="note" id="untrained">
<strong>This model is UNTRAINED.</strong> Its weights are random numbers ({names}). The figures show that the machinery
works; they say nothing about any action or concept.
</div>
"""


def summary(data: ReportData, cells: Cells) -> str:
    found = sentences.findings(cells, MAX_FINDINGS) if len(cells) else []
    left = len(cells.classes) - len(found)
    more = (
        f'<p class="muted">The {len(found)} classes with the largest significant effects are named here; '
        f"{count(left, 'more class') if left == 1 else f'{left:,} more classes'} are in the matrix.</p>"
        if left > 0
        else ""
    )
    return f"""<section id="summary" aria-labelledby="summary-title">
<p class="eyebrow">{_subtitle(data)}</p>
<h1 id="summary-title">What the model uses</h1>
<div class="lead">{_paragraphs(sentences.overall(cells, alpha=data.alpha, correction=data.correction))}</div>
{_shares(cells)}
{_tiles(data, cells)}
<div class="findings">
{"".join(_finding(f) for f in found)}</div>
{more}
{_undecided(cells)}
{_warnings(data.warnings)}
</section>
"""


def places() -> str:
    """Where the scripts draw. Until they have, or where they may not, each says so."""
    need = '<p class="muted">This part is drawn by JavaScript.</p>'
    return f"""<section id="matrix" aria-labelledby="matrix-title">
<h2 id="matrix-title">Classes × concepts</h2>
<div id="matrix-place">{need}</div>
</section>
<section id="class" aria-labelledby="class-title">
<h2 id="class-title">Class by class</h2>
<div id="class-place">{need}</div>
</section>
<section id="concepts" aria-labelledby="concepts-title">
<h2 id="concepts-title">Concepts</h2>
<div id="concepts-place">{need}</div>
</section>
<dialog id="evidence" aria-labelledby="evidence-title"></dialog>
"""


def run_section(data: ReportData) -> str:
    config = yaml.safe_dump(dict(data.config), sort_keys=False, allow_unicode=True, width=100)
    return f"""<section id="run" aria-labelledby="run-title">
<h2 id="run-title">The run</h2>
<dl class="facts">{_facts(data)}</dl>
<h3>Stages</h3>
{_stages(data.stages)}
<h3 id="failures">Failures</h3>
{_failures(data)}
<details><summary>Config</summary><pre tabindex="0">{escape(config)}</pre></details>
<details><summary>Versions</summary><dl class="facts">{_pairs(data.versions)}</dl></details>
</section>
"""


def footer(data: ReportData) -> str:
    version = data.versions.get("vtcav-ray", "")
    return (
        f"<footer><p>Made by vtcav-ray {escape(version)}. Charts: Observable Plot and D3 (ISC licence).</p></footer>\n"
    )


def _subtitle(data: ReportData) -> str:
    when = ""
    if data.updated is not None:
        when = datetime.datetime.fromtimestamp(data.updated, datetime.UTC).strftime("%d %B %Y, %H:%M UTC")
    return " · ".join(escape(x) for x in (*data.models, when) if x)


def _tiles(data: ReportData, cells: Cells) -> str:
    tested = int(np.isfinite(cells.numbers["effect_p"]).sum()) if len(cells) else 0
    tiles = [
        (f"{int(cells.significant_N.sum()):,}", "significant cells"),
        (f"{tested:,}", "cells tested (m)"),
        (f"{data.alpha:g}", f"α, {_correction(data.correction)}"),
        ("–" if data.random_sets is None else f"{data.random_sets:,}", "random sets (R)"),
        (f"{len(cells.classes):,}", "classes"),
        (f"{len({c.concept for c in cells.columns}):,}", "concepts"),
        (f"{len(cells.layers):,}", "layers"),
        (f"{data.failures.num_rows:,}", "failures"),
    ]
    return '<dl class="tiles">' + "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for v, k in tiles) + "</dl>"


def _shares(cells: Cells) -> str:
    """Significant cells by group of concept, as bars."""
    bars = "".join(
        f'<li><span>{word}</span><span class="meter" aria-hidden="true"><span style="width:{100 * found / total:.1f}%">'
        f'</span></span><span class="of">{found:,} of {total:,}</span></li>'
        for word, found, total in sentences.group_shares(cells)
    )
    return f'<ul class="shares" aria-label="Significant cells, against random clips">{bars}</ul>' if bars else ""


def _correction(correction: str) -> str:
    return {"holm": "Holm", "bh": "Benjamini–Hochberg", "none": "uncorrected"}.get(correction, escape(correction))


def _finding(finding: sentences.ClassFinding) -> str:
    name = escape(finding.name)
    items = "".join(f"<li>{_sentence(s)}</li>" for s in finding.sentences)
    return f"""<article class="finding">
<h2><a class="class-link" data-class="{name}" href="#class">{name}</a></h2>
<div class="strip" data-class="{name}"></div>
<ul>{items}</ul>
</article>
"""


def _undecided(cells: Cells) -> str:
    found = sentences.undecided(cells)
    if not found:
        return ""
    items = "".join(f"<li>{_sentence(s)}</li>" for s in found)
    return f'<div class="open-questions"><h2>What could not be decided, and why</h2><ul>{items}</ul></div>'


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = [f"<li>{escape(w)}</li>" for w in warnings]
    rest = "".join(items[MAX_WARNINGS_OPEN:])
    folded = (
        f"<details><summary>{len(items) - MAX_WARNINGS_OPEN:,} more</summary><ul>{rest}</ul></details>" if rest else ""
    )
    return (
        f'<div class="warnings" role="note" aria-label="Warnings"><h2>Warnings</h2>'
        f"<ul>{''.join(items[:MAX_WARNINGS_OPEN])}</ul>{folded}</div>"
    )


def _paragraphs(found: Sequence[sentences.Sentence]) -> str:
    return "".join(f"<p>{_sentence(s)}</p>" for s in found)


def _sentence(sentence: sentences.Sentence) -> str:
    return "".join(
        f'<span class="{span.role}">{escape(span.text)}</span>' if span.role else escape(span.text) for span in sentence
    )


def _facts(data: ReportData) -> str:
    pairs: dict[str, Any] = {"run folder": data.url, "status": data.status, "model": ", ".join(data.models)}
    seconds = [s.seconds for s in data.stages if s.seconds is not None]
    pairs["time, all stages"] = duration(sum(seconds)) if seconds else "–"
    pairs["stored"] = size(sum(s.bytes for s in data.stages))
    return _pairs({k: v for k, v in {**pairs, **_throughput(data), **_cost(data)}.items() if v})


def _throughput(data: ReportData) -> dict[str, str]:
    """Videos and clips a second: over the stages that look at each, and over the whole run."""
    rows = {name: n for s in data.stages for name, n in s.rows.items()}
    took = {s.name: s.seconds or 0.0 for s in data.stages}
    videos, clips = rows.get("videos", 0), rows.get("clips", 0)
    return {
        "videos a second, tracked": rate(videos, took.get("tracks")),
        "clips a second, through the model": rate(clips, took.get("activations")),
        "videos a second, all stages": rate(videos, sum(took.values())),
    }


def _hours(data: ReportData) -> Hours:
    resources = data.config.get("resources", {})
    return sum((stage_hours(s.name, s.worker_seconds, resources) for s in data.stages), Hours())


def _cost(data: ReportData) -> dict[str, str]:
    if not any(s.worker_seconds for s in data.stages):
        return {}
    hours, rates = _hours(data), data.config.get("resources", {}).get("rates", {})
    found = price(hours, rates)
    return {
        "CPU hours held": f"{hours.cpu:.3g}",
        "GPU hours held": f"{hours.gpu:.3g}",
        "cost": "no rate given (resources.rates)" if found is None else f"{found:,.2f} {rates.get('currency', 'EUR')}",
    }


def _pairs(pairs: Mapping[str, Any]) -> str:
    return "".join(f"<div><dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd></div>" for k, v in pairs.items())


def _stages(stages: Sequence[StageFacts]) -> str:
    if not stages:
        return '<p class="muted">No stage has a manifest.</p>'
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Stages"><table class="plain"><thead><tr>'
        '<th scope="col">stage</th><th scope="col">rows</th><th scope="col" class="n">time</th>'
        '<th scope="col">share of time</th><th scope="col" class="n">a second</th>'
        '<th scope="col" class="n">stored</th><th scope="col">counts</th>'
        '<th scope="col">key</th></tr></thead><tbody>'
        + "".join(_stage_row(stage, sum(s.seconds or 0.0 for s in stages)) for stage in stages)
        + "</tbody></table></div>"
    )


def _stage_row(stage: StageFacts, all_seconds: float) -> str:
    share = 100 * (stage.seconds or 0.0) / all_seconds if all_seconds else 0.0
    bar = f'<span class="meter share" aria-hidden="true"><span style="width:{share:.1f}%"></span></span>'
    rows = ", ".join(f"{n:,} {escape(name)}" for name, n in stage.rows.items() if name in NAMES) or "–"
    metrics = ", ".join(f"{escape(name)} {_counted(value)}" for name, value in stage.metrics.items())
    made = stage.rows.get(THROUGHPUT.get(stage.name, stage.name), 0)
    ingredients = yaml.safe_dump(dict(stage.ingredients), sort_keys=False, allow_unicode=True, width=80)
    key = f"<code>{escape(stage.key)}</code>"
    if stage.ingredients:
        key = f"<details><summary>{key}</summary><pre tabindex='0'>{escape(ingredients)}</pre></details>"
    return (
        f'<tr><th scope="row">{escape(stage.name)}</th><td>{rows}</td><td class="n">{duration(stage.seconds)}</td>'
        f'<td>{share:.0f} %{bar}</td><td class="n">{rate(made, stage.seconds)}</td>'
        f'<td class="n">{size(stage.bytes)}</td>'
        f"<td>{metrics}</td><td>{key}</td></tr>"
    )


def _counted(value: float) -> str:
    """A metric: whole where it is a count or large, else four digits."""
    return f"{value:,.0f}" if value >= 1000 or float(value).is_integer() else f"{value:.4g}"


def _failures(data: ReportData) -> str:
    total = data.failures.num_rows
    if total == 0:
        return '<p class="muted">None: every input could be used.</p>'
    columns = ("stage", "error_kind", "uri", "video_id", "clip_id", "message", "attempts")
    rows = data.failures.slice(0, MAX_FAILURES).to_pylist()
    body = "".join(
        "<tr>" + "".join(f"<td>{escape('' if r[c] is None else str(r[c]))}</td>" for c in columns) + "</tr>"
        for r in rows
    )
    head = "".join(f'<th scope="col">{c.replace("_", " ")}</th>' for c in columns)
    left = (
        f'<p class="muted">{total - len(rows):,} more are in the table <code>failures</code>.</p>'
        if total > len(rows)
        else ""
    )
    return (
        f"<p>{count(total, 'input')} could not be used. {_by_kind(data)}</p>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Failures"><table class="plain"><thead><tr>{head}'
        f"</tr></thead><tbody>{body}</tbody></table></div>{left}"
    )


def _by_kind(data: ReportData) -> str:
    counts: dict[str, int] = {}
    for kind in data.failures["error_kind"].to_pylist():
        counts[str(kind)] = counts.get(str(kind), 0) + 1
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    return escape(", ".join(f"{kind}: {n:,}" for kind, n in ranked) + ".")

"""Render a room's templates: the Jinja2 environment, and what the shell needs to build a self-contained page.

Every template escapes what it shows. Only the project's own files (`asset`) and the policy made here are trusted.
Text from the data reaches the scripts as JSON, which the scripts insert with `textContent`.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, PrefixLoader, StrictUndefined
from markupsafe import Markup

from vtcav_ray.pages import wording

HERE = "vtcav_ray.pages"
# Observable Plot (ISC) draws SVG, which CSS styles for light, dark and print, and a screen reader can read; with D3
# (ISC) it is 0.5 MB. plotly.js is 4.6 MB and draws its own colours, so dark mode and print would need a redraw.
CHARTS = ("d3.min.js", "plot.umd.min.js")
FILTERS = (
    wording.count,
    wording.duration,
    wording.metric,
    wording.probability,
    wording.rate,
    wording.share,
    wording.signed,
    wording.size,
    wording.whole,
)


@dataclass(frozen=True)
class Shell:
    """What `shell.html` puts around a page.

    The page runs these scripts and no others, and loads nothing from anywhere: its content security policy says so.

    Attributes:
        title: shown in the browser's tab.
        styles: style sheets, joined in this order. From `asset`.
        scripts: one script element each, at the end of the page. From `asset` and `function`.
        data: id -> value, stored as JSON in `<script type="application/json" id=...>`.
        packed: id -> base64 text, stored in `<script type="text/plain" id=...>`.
        images: allow pictures in `data:` URLs.
        inline_styles: allow `style` attributes and style elements made by scripts, which Observable Plot needs.
        body_class: class of the body element; empty: none.
    """

    title: str
    styles: Sequence[Markup]
    scripts: Sequence[Markup] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    packed: Mapping[str, str] = field(default_factory=dict)
    images: bool = False
    inline_styles: bool = False
    body_class: str = ""

    @property
    def style(self) -> Markup:
        """The one style sheet of the page."""
        return Markup("").join(self.styles)

    @property
    def policy(self) -> Markup:
        """The content security policy. It has no character that HTML would need escaped inside double quotes."""
        rules = ["default-src 'none'"]
        if self.scripts:
            rules.append(f"script-src {' '.join(_hash(script) for script in self.scripts)}")
        rules.append(f"style-src {_quoted('unsafe-inline') if self.inline_styles else _hash(self.style)}")
        if self.images:
            rules.append("img-src data:")
        return Markup("; ".join([*rules, "base-uri 'none'"]))


def render(package: str, template: str, **values: Any) -> str:
    """Render a template of a room.

    Args:
        package: the room, such as `vtcav_ray.report`; its templates are in the folder `templates` there.
        template: file name.
        values: for the template; one that the template needs and does not get is an error.
    """
    return _environment(package).get_template(template).render(values)


def stream(package: str, template: str, **values: Any) -> Iterator[str]:
    """As `render`, piece by piece. An iterator among the values is read as the pieces are taken."""
    return _environment(package).get_template(template).generate(values)


def asset(package: str, *names: str) -> Markup:
    """Files of a room's folder `assets`, joined, ready to stand in a script or style element."""
    texts = [(files(package) / "assets" / name).read_text(encoding="utf-8") for name in names]
    for name, text in zip(names, texts, strict=True):
        # The HTML parser ends an element at the first end tag, wherever it stands.
        assert "</script" not in text.lower(), name
        assert "</style" not in text.lower(), name
    return Markup("\n".join(texts))


def function(*scripts: Markup) -> Markup:
    """Scripts in one function, so that none of their names is global."""
    return Markup('(() => {\n"use strict";\n') + Markup("\n").join(scripts) + Markup("\n})();\n")


def data_url(content: bytes, kind: str) -> str:
    """Write bytes as a `data:` URL, `kind` such as `image/webp`. A filter, too."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@functools.cache
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PrefixLoader({"pages": PackageLoader(HERE)})]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update({one.__name__: one for one in (*FILTERS, data_url)})
    # `tojson` escapes `<`, `>`, `&` and `'`, so neither `</script>` nor `<!--` can occur in a data block.
    environment.policies["json.dumps_kwargs"] = {
        "ensure_ascii": False,
        "separators": (",", ":"),
        "allow_nan": False,
        "sort_keys": False,
    }
    return environment


def _hash(text: str) -> str:
    return _quoted(f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}")


def _quoted(word: str) -> str:
    return f"'{word}'"

"""Render a room's templates: the Jinja2 environment and the shell of a self-contained page.

Every template escapes its values. Only the project's files (`asset`) and the policy made here are trusted. Text from
the data reaches the scripts as JSON, and the scripts insert it with `textContent`.
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
# Observable Plot (ISC) draws SVG, which CSS can style for light, dark and print, and which screen readers can read.
# With D3 (ISC) it is 0.5 MB. plotly.js is 4.6 MB and sets its own colours, so dark mode and print would need a redraw.
CHARTS = ("d3.min.js", "plot.umd.min.js")
SAVING = ("pictures.js", "downloads.js")  # buttons that save a table or a chart
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
    """The parts that `shell.html` puts around a page.

    The content security policy allows only these scripts, and lets the page load nothing.

    Attributes:
        title: shown in the browser's tab.
        styles: style sheets from `asset`, joined in this order.
        scripts: from `asset` and `function`; one script element each, at the end of the page.
        data: id -> value, stored as JSON in `<script type="application/json" id=...>`.
        packed: id -> base64 text, stored in `<script type="text/plain" id=...>`.
        images: allow images in `data:` URLs.
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
        """The page's single style sheet."""
        return Markup("").join(self.styles)

    @property
    def policy(self) -> Markup:
        """The content security policy. It contains no character that needs escaping inside double quotes in HTML."""
        rules = ["default-src 'none'"]
        if self.scripts:
            rules.append(f"script-src {' '.join(_hash(script) for script in self.scripts)}")
        rules.append(f"style-src {_quoted('unsafe-inline') if self.inline_styles else _hash(self.style)}")
        if self.images:
            rules.append("img-src data:")
        return Markup("; ".join([*rules, "base-uri 'none'"]))


def render(package: str, template: str, **values: Any) -> str:
    """Render a room's template.

    Args:
        package: the room, such as `vtcav_ray.report`; its templates are in its folder `templates`.
        template: file name.
        values: the template's variables; a missing one is an error.
    """
    return _environment(package).get_template(template).render(values)


def stream(package: str, template: str, **values: Any) -> Iterator[str]:
    """Like `render`, but yield the page piece by piece. Iterators among the values are consumed lazily."""
    return _environment(package).get_template(template).generate(values)


def asset(package: str, *names: str) -> Markup:
    """Return files of a room's folder `assets`, joined, for use in a script or style element."""
    texts = [(files(package) / "assets" / name).read_text(encoding="utf-8") for name in names]
    for name, text in zip(names, texts, strict=True):
        # The HTML parser ends an element at the first end tag, even inside a string or comment.
        assert "</script" not in text.lower(), name
        assert "</style" not in text.lower(), name
    return Markup("\n".join(texts))


def function(*scripts: Markup) -> Markup:
    """Wrap scripts in one function, so none of their names is global."""
    return Markup('(() => {\n"use strict";\n') + Markup("\n").join(scripts) + Markup("\n})();\n")


def data_url(content: bytes, kind: str) -> str:
    """Return bytes as a `data:` URL of MIME type `kind`, such as `image/webp`. Also a template filter."""
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

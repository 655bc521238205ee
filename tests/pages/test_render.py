"""The shell and templates of every room: escaped, strict, complete, and closed to content from other origins."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

import vtcav_ray
from vtcav_ray.pages import Shell, asset, render, stream
from vtcav_ray.pages.render import HERE, _environment, function

ROOT = Path(vtcav_ray.__file__).parent
TEMPLATES = sorted(ROOT.glob("*/templates/*.html"))
ROOMS = sorted({path.parents[1].name for path in TEMPLATES} - {"pages"})
NASTY = "</title><script>alert(1)</script>\"'&<!--"


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_page_has_a_room_with_templates() -> None:
    assert ROOMS == ["compare", "gradcam", "maps", "notebook", "report", "review", "watch", "why"]


@pytest.mark.parametrize("room", ROOMS)
def test_every_template_compiles_and_escapes(room: str) -> None:
    environment = _environment(f"vtcav_ray.{room}")
    assert environment.autoescape is True
    for path in (ROOT / room / "templates").glob("*.html"):
        environment.get_template(path.name)
    assert environment.from_string("{{ a }}").render(a="<'\"&") == "&lt;&#39;&#34;&amp;"


@pytest.mark.parametrize("path", TEMPLATES, ids=ids)
def test_no_template_switches_escaping_off(path: Path) -> None:
    assert not re.search(r"\|\s*safe\b|autoescape", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", [p for p in TEMPLATES if p.parents[1].name != "pages"], ids=ids)
def test_the_shell_is_the_only_one(path: Path) -> None:
    assert not re.search(r"<!doctype|<html|<head>|<body", path.read_text(encoding="utf-8"), re.IGNORECASE)


def test_all_templates_and_assets_are_in_the_package() -> None:
    pyproject = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = pyproject["tool"]["setuptools"]["package-data"]["vtcav_ray"]
    held = [path for folder in ("templates", "assets") for path in ROOT.glob(f"*/{folder}/*") if path.is_file()]
    assert len(held) > len(TEMPLATES)
    left_out = [ids(path) for path in held if not any(fnmatch(ids(path), pattern) for pattern in patterns)]
    assert left_out == []


@pytest.mark.slow
def test_the_pages_import_no_other_room() -> None:
    code = (
        "import sys, vtcav_ray.pages; "
        "print(*sorted(n for n in sys.modules if n.startswith('vtcav_ray.') and not n.startswith('vtcav_ray.pages')))"
    )
    alone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    bare = "import sys, vtcav_ray; print(*sorted(n for n in sys.modules if n.startswith('vtcav_ray.')))"
    already = subprocess.run([sys.executable, "-c", bare], capture_output=True, text=True, check=True).stdout.split()
    assert set(alone) <= set(already)


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="title"):
        render("vtcav_ray.compare", "compare.html", shell=Shell("a", []), sentences=[])


def page_of(shell: Shell) -> str:
    return render("vtcav_ray.compare", "compare.html", shell=shell, title=shell.title, sentences=[])


def sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_the_policy_allows_what_stands_in_the_page_and_nothing_else() -> None:
    page = page_of(Shell("t", [asset(HERE, "page.css")], [Markup("let a = 1 < 2;"), Markup("'b'")]))
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert scripts == ["let a = 1 < 2;", "'b'"]
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{sha256(scripts[0])}' 'sha256-{sha256(scripts[1])}'; "
        f"style-src 'sha256-{sha256(style)}'; base-uri 'none'"
    )


def test_without_scripts_none_may_run() -> None:
    assert Shell("t", [], images=True, inline_styles=True).policy == (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"
    )


def test_data_comes_back_and_ends_no_element() -> None:
    value = {"b": NASTY, "a": ["ü–", None, 1.5]}
    page = page_of(Shell(NASTY, [], data={"facts": value}, packed={"cells": "AAAA"}))
    assert "<script>alert" not in page
    (text,) = re.findall(r'<script type="application/json" id="facts">(.*?)</script>', page, re.DOTALL)
    assert json.loads(text) == value
    assert list(json.loads(text)) == ["b", "a"]  # not sorted: columns keep their order
    assert '<script type="text/plain" id="cells">AAAA</script>' in page


def test_numbers_that_json_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        page_of(Shell("t", [], data={"facts": float("nan")}))


def test_a_stream_reads_its_iterators_as_it_goes() -> None:
    read = []

    def sentences():
        for k in range(3):
            read.append(k)
            yield f"sentence {k}"

    shell = Shell("t", [], ())
    parts = stream("vtcav_ray.compare", "compare.html", shell=shell, title="t", sentences=sentences())
    for part in parts:
        if "sentence 0" in part:
            break
    assert len(read) < 3
    assert "sentence 2" in "".join(parts)


def test_joined_scripts_share_one_function() -> None:
    assert function(Markup("a"), Markup("b")) == '(() => {\n"use strict";\na\nb\n})();\n'

"""The site: every page is in the navigation, the strict build passes, and the project's facts agree."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import vtcav_ray

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


class _Loader(yaml.SafeLoader):
    """MkDocs' config may hold tags that name Python functions; they are not looked at here."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def pages(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from pages(child)


def test_every_page_is_in_the_navigation_once() -> None:
    config = yaml.load((ROOT / "mkdocs.yml").read_text(), _Loader)
    listed = list(pages(config["nav"]))
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))
    assert [next(iter(part)) for part in config["nav"]] == [
        "Home", "Tutorials", "How-to guides", "Reference", "Explanation",
    ]  # fmt: skip
    assert config["extra"]["version"]["provider"] == "mike"


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    api = (tmp_path / "site" / "api" / "index.html").read_text()
    assert "vtcav_ray.notebook.explaining.explain" in api
    assert "Clips are arrays" in api  # the docstring, not only the name
    assert (tmp_path / "site" / "notebooks" / "quickstart.py").is_file()


def test_the_citation_and_the_changelog_are_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == vtcav_ray.__version__
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)  # what the format requires
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["license"] == project["license"]
    # No address is better than one that does not exist.
    assert "Paper" in project["urls"]
    assert not [url for url in project["urls"].values() if "example." in url]
    assert f"## {vtcav_ray.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_picture_is_small() -> None:
    picture = DOCS / "images" / "answer.png"
    assert picture.stat().st_size < 150_000
    assert all(picture.name in (ROOT / page).read_text() for page in ("README.md", "docs/index.md"))

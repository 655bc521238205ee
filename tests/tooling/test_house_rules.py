"""Rules of CONTRIBUTING.md that ruff does not check: the length of files and functions, and what tests import."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("vtcav_ray", "tests", "benchmarks", "tools", "jobs")
MOST_LINES, MOST_LINES_OF_FUNCTION = 400, 60
OTHER_TESTS = re.compile(r"^\s*(from|import) tests(?!\.helpers)", re.MULTILINE)


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return found


def long_functions(text: str) -> Iterator[tuple[str, int]]:
    """Yield name and lines of every function that is too long; its docstring does not count."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if ast.get_docstring(node) is not None:
            docstring = node.body[0]
            lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
        if lines > MOST_LINES_OF_FUNCTION:
            yield node.name, lines


def imports_of_tests(text: str) -> list[str]:
    """Return the modules of tests, other than helpers, that a file imports."""
    modules: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            modules += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
    return [name for name in modules if any(part.startswith("test_") for part in name.split(".")) and "tests" in name]


def test_files_have_at_most_400_lines() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources(*FOLDERS)}
    assert {str(path): n for path, n in lines.items() if n > MOST_LINES} == {}


@pytest.mark.slow  # it parses every file
def test_functions_have_at_most_60_lines() -> None:
    found = {
        f"{path}: {name}": lines
        for path in sources(*FOLDERS)
        for name, lines in long_functions(path.read_text(encoding="utf-8"))
    }
    assert found == {}


def test_each_file_of_tests_has_its_own_name() -> None:
    """Without packages, pytest can't import a second file of the same name."""
    names = Counter(path.name for path in sources("tests") if path.name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []


def test_tests_do_not_import_each_other() -> None:
    texts = {str(path): path.read_text(encoding="utf-8") for path in sources("tests")}
    found = {path: imports_of_tests(text) for path, text in texts.items() if OTHER_TESTS.search(text)}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(("lines", "long"), [(59, False), (60, True)])
def test_a_docstring_does_not_count(lines: int, long: bool) -> None:
    docstring = '    """First.\n\n    Second.\n    """\n'
    for text in ("", docstring):
        body = text + "    x = 1\n" * lines
        assert [name for name, _ in long_functions(f"def f():\n{body}async def g():\n{body}")] == ["f", "g"] * long


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from tests.video.test_listing import touch", ["tests.video.test_listing", "tests.video.test_listing.touch"]),
        ("from tests.video import test_listing", ["tests.video.test_listing"]),
        ("import tests.video.test_listing", ["tests.video.test_listing"]),
        ("from tests.helpers.drawn import encode", []),
        ("from numpy.testing import assert_allclose", []),
    ],
)
def test_an_import_of_a_test_is_found(line: str, found: list[str]) -> None:
    assert imports_of_tests(line) == found
    assert not found or OTHER_TESTS.search(line)

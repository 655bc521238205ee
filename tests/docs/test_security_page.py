"""Every statement of docs/security.md names the tests that hold it, and these tests exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "security.md").read_text()
NAMED = re.findall(r"^    - `([\w/]+\.py)::(\w+|\*)`$", PAGE, flags=re.M)


@pytest.mark.parametrize(("file", "test"), NAMED, ids=[f"{file}::{test}" for file, test in NAMED])
def test_a_test_that_the_page_names_exists(file: str, test: str) -> None:
    tree = ast.parse((TESTS / file).read_text())
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert test in names if test != "*" else any(name.startswith("test_") for name in names)


def test_every_statement_names_a_test() -> None:
    statements, _, _ = PAGE.partition("## Limits of this protection")
    lines = statements.splitlines()
    found = [i for i, line in enumerate(lines) if line.startswith("- ")]
    assert found
    assert [lines[i] for i in found if not lines[i + 1].startswith("    - `")] == []
    assert len(NAMED) == sum(line.startswith("    - ") for line in lines)

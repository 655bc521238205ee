"""`make audit` succeeds only if every package was looked up."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Tool = Callable[[str], ModuleType]
Program = Callable[[Path, str], Path]
TODAY = datetime.date(2026, 11, 27)
CLEAN = {"name": "numpy", "version": "2.4.6", "vulns": []}
BAD = {
    "name": "pillow",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": ["CVE-2026-1"]}],
}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.13.0)"}


def test_all_looked_up_and_nothing_known(tool: Tool) -> None:
    status, text = tool("audit").judge({"dependencies": [CLEAN, CLEAN]})
    assert status == 0
    assert text.startswith("2 packages, no known vulnerability")


def test_an_advisory_is_reported_with_its_other_names_and_the_fixed_version(tool: Tool) -> None:
    status, text = tool("audit").judge({"dependencies": [CLEAN, BAD]})
    assert status == 1
    assert "pillow 1.0: PYSEC-1 (CVE-2026-1); fixed in 1.1" in text


@pytest.mark.parametrize("packages", [[UNKNOWN], [CLEAN, UNKNOWN], [BAD, UNKNOWN], []])
def test_what_was_not_looked_up_is_never_called_safe(tool: Tool, packages: list[dict[str, Any]]) -> None:
    """Here pip-audit itself ends with 0: "No known vulnerabilities found"."""
    status, text = tool("audit").judge({"dependencies": packages})
    assert status == 2
    assert f"NOT AUDITED: {packages.count(UNKNOWN)} of {len(packages)} packages" in text
    assert ("PYSEC-1" in text) == (BAD in packages)


def test_reviews_have_a_date_and_a_reason_and_grow_old(tool: Tool) -> None:
    audit = tool("audit")
    assert audit.read_reviews(audit.REVIEWED.read_text(), TODAY) == []
    (review,) = audit.read_reviews("# said by a person\n\nPYSEC-1 2026-11-01 no image is read with it\n", TODAY)
    assert (review.advisory, review.reason) == ("PYSEC-1", "no image is read with it")
    for bad in ("PYSEC-1", "PYSEC-1 2026-11-01", "PYSEC-1 yesterday it is fine"):
        with pytest.raises(audit.AuditError, match=r"advisories.txt, line 2: write `ADVISORY"):
            audit.read_reviews(f"\n{bad}\n", TODAY)
    with pytest.raises(audit.AuditError, match=r"review of PYSEC-1 is of 2026-05-30.*Review it again"):
        audit.read_reviews("PYSEC-1 2026-05-30 old", TODAY)


def test_pip_audit_is_called_on_the_lock_files_and_its_failure_is_a_sentence(
    tool: Tool, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = tool("audit")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(audit.AuditError, match="not installed"):
        audit.run_pip_audit([])
    report = json.dumps({"dependencies": [CLEAN]})
    program(tmp_path / "pip-audit", f"echo \"$*\" > {tmp_path / 'called'}\necho '{report}'")
    review = audit.Review("PYSEC-1", TODAY, "harmless")
    assert audit.run_pip_audit([review]) == {"dependencies": [CLEAN]}
    called = (tmp_path / "called").read_text()
    assert called.endswith("--ignore-vuln PYSEC-1\n")
    assert called.count("--requirement") == 2
    for name in ("requirements.lock", "cluster/torch-cuda.lock", "--require-hashes"):
        assert name in called
    program(tmp_path / "pip-audit", "echo 'Traceback' >&2; echo 'ConnectionError: no route' >&2; exit 1")
    with pytest.raises(audit.AuditError, match=r"ConnectionError: no route\n.*a machine that reaches it"):
        audit.run_pip_audit([])

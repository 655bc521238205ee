"""Look the locked packages up in the package index's list of known vulnerabilities: `make audit`.

Exit status: 0 every package was looked up and none has an advisory that is not reviewed; 1 some have; 2 some
packages could not be looked up. pip-audit alone ends with 0 and "no known vulnerabilities" if the index knows none of
the packages, as mirrors without advisories do. Here that is 2.

`tools/advisories.txt` lists advisories that a person has looked at and found harmless here.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# cluster/torch-cpu.lock names the same version of torch, in a build that no index of advisories lists.
LOCKS = (ROOT / "requirements.lock", ROOT / "cluster" / "torch-cuda.lock")
REVIEWED = ROOT / "tools" / "advisories.txt"
REVIEW_HOLDS = datetime.timedelta(days=180)
FOUND, NOT_MADE = 1, 2


class AuditError(Exception):
    """The audit failed. The message says why and what to do."""


@dataclass(frozen=True)
class Review:
    """An advisory that a person has looked at."""

    advisory: str
    date: datetime.date
    reason: str


def main() -> int:
    try:
        reviews = read_reviews(REVIEWED.read_text(encoding="utf-8"), datetime.date.today())
        report = run_pip_audit(reviews)
        status, text = judge(report)
    except AuditError as error:
        print(error, file=sys.stderr)
        return NOT_MADE
    print(text, file=sys.stderr if status == NOT_MADE else sys.stdout)
    return status


def read_reviews(text: str, today: datetime.date) -> list[Review]:
    """Read lines of `ADVISORY YEAR-MONTH-DAY REASON`; `#` starts a comment line.

    Raises:
        AuditError: a line is not of that form, or the review is older than `REVIEW_HOLDS`.
    """
    reviews = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        place = f"{REVIEWED.name}, line {number}"
        words = line.split(maxsplit=2)
        try:
            review = Review(words[0], datetime.date.fromisoformat(words[1]), words[2])
        except (ValueError, IndexError) as error:
            raise AuditError(f"{place}: write `ADVISORY YEAR-MONTH-DAY REASON`, not {line!r}.") from error
        if today - review.date > REVIEW_HOLDS:
            raise AuditError(
                f"{place}: the review of {review.advisory} is of {review.date}, more than {REVIEW_HOLDS.days} days "
                "ago. Review it again: change the date, or remove the line."
            )
        reviews.append(review)
    return reviews


def run_pip_audit(reviews: list[Review]) -> dict[str, Any]:
    """Run pip-audit on the lock files; return its report."""
    program = Path(sys.executable).with_name("pip-audit")
    command = [str(program), "--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json"]
    command += ["--desc", "off", *(word for lock in LOCKS for word in ("--requirement", str(lock)))]
    command += [word for review in reviews for word in ("--ignore-vuln", review.advisory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise AuditError(f"{program} is not installed. `make setup` installs it.") from error
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise AuditError(
            f"pip-audit could not make the audit: {last}\nIt asks PyPI's list of advisories. If that can't be reached "
            "from here, run `make audit` on a machine that reaches it."
        ) from error
    return dict(report)


def judge(report: dict[str, Any]) -> tuple[int, str]:
    """Return the exit status and the report's text."""
    packages = report["dependencies"]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    lines = [
        f"{package['name']} {package['version']}: {found['id']}{_aliases(found)}; {_fixed_in(found)}"
        for package in packages
        for found in package.get("vulns", ())
    ]
    looked_up = len(packages) - len(skipped)
    if lines:
        lines.append(f"{len(lines)} advisories for {looked_up} packages. Raise the versions in constraints.txt and")
        lines.append(f"run `make lock`; or write a reviewed line into {REVIEWED.relative_to(ROOT)}.")
    if skipped or not packages:
        names = ", ".join(skipped[:5]) + (", ..." if len(skipped) > 5 else "")
        lines.append(
            f"NOT AUDITED: {len(skipped)} of {len(packages)} packages. The index has no advisories for {names}"
        )
        lines.append("It is probably a mirror that holds files alone. Run `make audit` on a machine that reaches PyPI.")
        return NOT_MADE, "\n".join(lines)
    if lines:
        return FOUND, "\n".join(lines)
    return 0, f"{looked_up} packages, no known vulnerability ({datetime.date.today()})."


def _aliases(found: dict[str, Any]) -> str:
    names = found.get("aliases") or []
    return f" ({', '.join(names)})" if names else ""


def _fixed_in(found: dict[str, Any]) -> str:
    versions = found.get("fix_versions") or []
    return f"fixed in {', '.join(versions)}" if versions else "no fixed version yet"


if __name__ == "__main__":
    sys.exit(main())

"""What a run prints for people: each note once, the worst first; no stray lines."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vtcav_ray.cli.notes import grouped
from vtcav_ray.cli.progress import PREFLIGHT, TerminalProgress
from vtcav_ray.config.loading import parse_config
from vtcav_ray.engine.stray import LOG_LEVEL_LINE, without_line
from vtcav_ray.errors import ConfigError
from vtcav_ray.preflight.checks import Check, Preflight
from vtcav_ray.watch.loop import Pass
from vtcav_ray.world import write_world

LEFT_OUT = "Concept {!r} is left out: {} source videos show it, 10 are needed."


def test_notes_that_say_the_same_are_one_and_the_worst_comes_first() -> None:
    notes = [
        ("clips", "40 files are left over by their extension: 40 .txt."),
        *(("clips", LEFT_OUT.format(name, count)) for name, count in (("cup", 3), ("ball", 7), ("cup", 3))),
        ("activations", "The model is UNTRAINED: its weights are random."),
        ("scores", "4 random sets can't give a p below 0.2."),
        ("cavs", "4 random sets can't give a p below 0.2."),
    ]
    found = grouped(notes)
    assert [group.rank for group in found] == [0, 1, 1, 3]
    assert found[0].stages == ("activations",)
    assert found[1].sentence == LEFT_OUT.format("cup", 3) + " (and 1 more like this)"
    assert found[2].stages == ("scores", "cavs")
    assert grouped([]) == []


def shown(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def manifest(*warnings: str) -> dict[str, Any]:
    return {"rows": {"clips": 3}, "seconds": 1.0, "warnings": list(warnings)}


def test_a_reused_stage_repeats_no_note() -> None:
    console = Console(file=io.StringIO(), width=200)
    with TerminalProgress(console) as progress:
        progress.checked(Preflight((Check("labels", "warn", "from the preflight"), Check("model", "ok", "fine"))))
        progress.stage_finished("clips", manifest("old"), reused=True)
        progress.stage_finished("cavs", manifest("new", "new"), reused=False)
        assert "new" not in shown(console), "notes come together, at the end"
        progress.print_notes()
        assert shown(console).count("new") == 1
    text = shown(console)
    assert text.count("new") == 1
    assert "old" not in text
    assert "fine" not in text
    assert f"note: {PREFLIGHT}: from the preflight" in text


def test_a_run_that_fails_prints_the_notes_it_has() -> None:
    console = Console(file=io.StringIO(), width=200)

    def fail() -> None:
        with TerminalProgress(console) as progress:
            progress.stage_finished("cavs", manifest("new"), reused=False)
            raise ConfigError("x")

    with pytest.raises(ConfigError):
        fail()
    assert "note: cavs: new" in shown(console)


@pytest.mark.slow
def test_the_rendering_of_a_world_is_shown(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_world(str(tmp_path), videos=9, seed=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 9) for i in range(1, 10)]
    write_world(str(tmp_path), videos=9, seed=1, progress=lambda done, total: seen.append((done, total)))
    assert len(seen) == 9  # it is there already
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    with TerminalProgress(console) as progress:
        progress.rendered(1, 9)
        progress._bars.refresh()
        assert "1/9" in shown(console)
        progress.rendered(9, 9)
        progress.rendered(9, 9)  # a second call after the end changes nothing
        assert not progress._tasks


def test_a_stray_line_is_dropped_and_other_lines_are_kept(capfd: pytest.CaptureFixture[str]) -> None:
    stray = b"[2026-01-01 12:00:00,000 I 7 7] logging.cc:303: Set ray log level from environment variable X to 3\n"

    def fail() -> None:
        with without_line(LOG_LEVEL_LINE):
            os.write(2, b"before\n" + stray + b"after")
            raise ConfigError("x")

    with pytest.raises(ConfigError):
        fail()
    os.write(2, b" the end\n")
    assert capfd.readouterr().err == "before\nafter the end\n"


def test_messages_say_what_to_type() -> None:
    with pytest.raises(ConfigError, match=r"--set videos\.world=null"):
        parse_config({"videos": {"uri": "mine", "world": {"videos": 40}}})
    with pytest.raises(ConfigError, match="give `uri`"):
        parse_config({"videos": {}})
    assert "No checkpoint matches x/*.pth" in Pass(no_match="x/*.pth").sentence
    assert Pass().sentence == "Nothing new."

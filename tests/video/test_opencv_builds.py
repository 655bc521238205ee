"""Several builds of OpenCV in one environment: what is said, and what to type."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vtcav_ray.cli import application, doctor
from vtcav_ray.errors import EXIT_STAGE
from vtcav_ray.preflight.run import opencv_checks
from vtcav_ray.video import opencv_builds

MISSING = "libGL.so.1: cannot open shared object file: No such file or directory"
Put = Callable[..., None]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Make only the given distributions of OpenCV installed."""
    original = importlib.metadata.distributions
    monkeypatch.setattr(
        opencv_builds.importlib.metadata, "distributions", lambda *, name: original(name=name, path=[str(tmp_path)])
    )

    def install(**versions: str) -> None:
        for name, version in versions.items():
            info = tmp_path / f"{name}-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
            )

    return install


def test_one_build_needs_nothing(put: Put) -> None:
    put(opencv_python_headless="5.0.0.93")
    assert opencv_builds.installed_builds() == {"opencv-python-headless": "5.0.0.93"}
    clean, text = opencv_builds.finding()
    assert clean
    assert "pip" not in text
    assert opencv_checks() == []


def test_builds_of_one_version_work_and_of_several_are_mixed(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    put(opencv_python_headless="5.0.0.93", opencv_contrib_python="5.0.0.93")
    clean, text = opencv_builds.finding()
    assert clean
    assert "opencv-contrib-python 5.0.0.93 share one folder" in text
    put(opencv_python="4.10.0.84")
    clean, text = opencv_builds.finding()
    assert not clean
    assert text.endswith(
        "pip uninstall --yes opencv-python opencv-contrib-python && "
        "pip install --no-deps --force-reinstall opencv-python-headless==5.0.0.93"
    )
    assert doctor._opencv()[0] == "note"
    (row,) = opencv_checks()
    assert (row.subject, row.verdict) == ("opencv", "warn")
    assert "opencv-python 4.10.0.84" in row.message


@pytest.fixture
def broken_cv2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `import cv2` fail as its compiled module does without a display's libraries."""
    (tmp_path / "cv2.py").write_text(f"raise ImportError({MISSING!r}, name='cv2')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "cv2", raising=False)


@pytest.mark.usefixtures("broken_cv2")
def test_a_command_says_which_builds_there_are_and_what_to_type(
    put: Put, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(opencv_python_headless="5.0.0.93", opencv_contrib_python="5.0.0.93", opencv_python="5.0.0.93")

    def command(standalone_mode: bool) -> None:
        import cv2  # noqa: F401 - which fails

    monkeypatch.setattr(application, "app", command)
    monkeypatch.setattr(application, "end_like_ctrl_c", lambda: None)
    with pytest.raises(SystemExit) as stopped:
        application.main()
    assert stopped.value.code == EXIT_STAGE
    said = " ".join(capsys.readouterr().err.split())
    assert MISSING in said
    assert "opencv-contrib-python 5.0.0.93" in said
    assert said.endswith("pip install --no-deps --force-reinstall opencv-python-headless==5.0.0.93")
    mark, text = doctor._opencv()
    assert mark == "broken"
    assert "pip uninstall --yes opencv-python opencv-contrib-python &&" in text


def test_other_import_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(standalone_mode: bool) -> None:
        raise ImportError("no such thing", name="another")

    monkeypatch.setattr(application, "app", command)
    monkeypatch.setattr(application, "end_like_ctrl_c", lambda: None)
    with pytest.raises(ImportError, match="no such thing"):
        application.main()

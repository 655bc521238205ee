"""The digests of the containers' base images: how they are found and written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Tool = Callable[[str], ModuleType]
Program = Callable[[Path, str], Path]
TEXT = "# a comment\nPYTHON_IMAGE=docker.io/library/python:3.11.14-slim\nOTHER=registry.example.com:5000/other:2\n"
DIGEST = "sha256:" + "0123456789abcdef" * 4
OLD = "sha256:" + "f" * 64


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "images.env"
    path.write_text(TEXT)
    return path


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty PATH for stand-in clients."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


@pytest.mark.parametrize("client", ["skopeo", "crane", "docker"])
def test_each_client_is_asked_for_the_digest_of_the_tag(
    tool: Tool, program: Program, file: Path, clients: Path, client: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program(clients / client, f'echo "$*" >> {file}.calls\necho {DIGEST}')
    pin = tool("pin_images")
    assert pin.main(["--check"], file) == 1
    assert "make pin-images" in capsys.readouterr().err
    assert pin.main([], file) == 0
    assert file.read_text() == (
        f"# a comment\nPYTHON_IMAGE=docker.io/library/python:3.11.14-slim@{DIGEST}\n"
        f"OTHER=registry.example.com:5000/other:2@{DIGEST}\n"
    )
    calls = Path(f"{file}.calls").read_text().splitlines()
    assert [call.split()[-1].removeprefix("docker://") for call in calls] == [
        "docker.io/library/python:3.11.14-slim",
        "registry.example.com:5000/other:2",
    ]
    assert pin.main(["--check"], file) == 0


def test_a_digest_is_renewed_from_the_tag(tool: Tool, program: Program, file: Path, clients: Path) -> None:
    file.write_text(TEXT.replace("slim", f"slim@{OLD}"))
    program(clients / "skopeo", f'case "$*" in *sha256*) exit 1;; esac\necho {DIGEST}')
    assert tool("pin_images").main([], file) == 0
    assert OLD not in file.read_text()
    assert file.read_text().count(DIGEST) == 2


@pytest.mark.parametrize("body", ["echo 'no such host' >&2; exit 1", "echo latest", "true"])
def test_what_is_no_digest_is_not_written(
    tool: Tool, program: Program, file: Path, clients: Path, body: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program(clients / "skopeo", body)
    assert tool("pin_images").main([], file) == 1
    assert "Nothing was written" in capsys.readouterr().err
    assert file.read_text() == TEXT


@pytest.mark.usefixtures("clients")
def test_without_a_client_it_is_a_sentence(tool: Tool, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool("pin_images").main([], file) == 1
    assert "Install one of skopeo, crane, docker" in capsys.readouterr().err
    assert tool("pin_images").main(["--chek"], file) == 1
    assert "--check" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line", ["PYTHON_IMAGE=python", "PYTHON_IMAGE=python:3@sha256:12", "python:3", "A=python@" + OLD]
)
def test_a_line_that_is_no_image_is_refused(tool: Tool, line: str) -> None:
    pin = tool("pin_images")
    with pytest.raises(pin.PinError, match="line 2: write NAME=IMAGE:TAG@sha256:DIGEST"):
        pin.images(f"# a comment\n{line}\n")

"""Hostile input: names, URLs, links, pickles. (HTML in the pages: tests/report, tests/watch.)"""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.helpers.browser import tab
from vtcav_ray.config import VideosConfig
from vtcav_ray.config.loading import load_config, parse_config
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.runs import logs
from vtcav_ray.store.access import open_url
from vtcav_ray.store.files import sha256_of
from vtcav_ray.store.urls import check_url
from vtcav_ray.videos.listing import list_videos
from vtcav_ray.watch.page import Point, build_page
from vtcav_ray.watch.registry import CheckpointRecord


@pytest.mark.parametrize(
    "url",
    [
        "ssh://host/a", "sftp://host/a", "github://org:repo@main/a", "dask://a", "reference://a", "ftp://host/a",
        "simplecache::s3://b/a", "zip://x::file:///etc/passwd", "file:///a\n/b", "javascript://a", "data:;base64://,",
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["videos.uri", "model.checkpoint", "tracks.weights", "out"])
def test_a_scheme_that_is_not_allowed_is_refused_before_anything_starts(url: str, key: str) -> None:
    data: dict[str, object] = {"videos": {"uri": "videos"}}
    if key == "out":
        data["out"] = url
    else:
        section, name = key.split(".")
        data[section] = {name: url}
    with pytest.raises(ConfigError, match=key):
        parse_config(data)


@pytest.mark.parametrize(
    "url", ["a/b.mp4", "s3://b/k", "S3://b/k", "https://h/a?x=1", "file:///a", "memory://a", "/a b"]
)
def test_what_is_needed_is_allowed(url: str) -> None:
    assert check_url(url, "videos.uri") == url


def test_run_and_checkpoint_urls_of_commands_are_checked_too(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from vtcav_ray import cli

    (tmp_path / "c.yaml").write_text("videos: {world: {}}\n")
    for arguments in (
        ["table", "sftp://host/run", "videos"],
        ["status", "sftp://host/run"],
        ["watch", str(tmp_path / "c.yaml"), "--once", "--checkpoints", "sftp://host/*.pth"],
    ):
        result = CliRunner().invoke(cli.app, arguments)
        assert isinstance(result.exception, ConfigError), arguments
        assert "sftp" in str(result.exception)


@pytest.mark.parametrize("url", ["http://[bad/x.mp4", "https://host:port/x", "http://a\u2100b/x"])
def test_a_url_that_can_not_be_parsed_is_reported_as_a_mistake(url: str) -> None:
    for call in (lambda: check_url(url, "videos.uri"), lambda: open_url(url)):
        with pytest.raises(ConfigError, match="not a URL"):
            call()


@pytest.mark.parametrize(
    "url", ["ssh://host/a.pth", "SFTP://host/a.pth", "simplecache::s3://b/a.pth", "github://repo/a"]
)
def test_whatever_opens_a_url_the_scheme_is_checked(url: str) -> None:
    with pytest.raises(ConfigError, match="not opened") as caught:
        sha256_of(url)  # the first step of `vtcav rerun --checkpoint`
    assert "Allowed" in str(caught.value) or "chain" in str(caught.value)


def write_manifest(tmp_path: Path, *uris: str) -> VideosConfig:
    path = tmp_path / "manifest.csv"
    path.write_text("uri\n" + "\n".join(f'"{uri}"' for uri in uris) + "\n")
    return VideosConfig(uri=str(path))


def test_rows_of_a_manifest_can_neither_climb_nor_change_the_scheme(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    config = write_manifest(tmp_path, "a.mp4", "sftp://h/a.mp4", "zip://x::/etc/passwd", "b.mp4\t../../x.mp4")
    videos, failures = list_videos(config)
    assert videos["video_id"].to_pylist() == ["a.mp4"]
    assert [f.error_kind for f in failures] == ["manifest"] * 3
    narrow = config.model_copy(update={"schemes": ("s3",)})
    (tmp_path / "manifest.csv").write_text("uri\nhttp://169.254.169.254/latest/meta-data/a.mp4\n")
    _, failures = list_videos(narrow)
    assert "videos.schemes" in failures[0].message


SIGNED = [
    "https://b.s3.amazonaws.com/{}.mp4?X-Amz-Credential=AKIA%2F1&X-Amz-Signature=5ecret&X-Amz-Expires=60",
    "https://storage.googleapis.com/b/{}.mp4?GoogleAccessId=me&Expires=1&Signature=5ecret",
    "https://a.blob.core.windows.net/c/{}.mp4?sv=2022&sig=5ecret",
    "https://host/{}.mp4?token=5ecret",
    "https://me:5ecret@host/{}.mp4",
    "s3://key:5ecret@bucket/{}.mp4",
]


def test_a_url_that_is_a_credential_gets_into_no_table(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    uris = [url.format(i) for i, url in enumerate(SIGNED)]
    plain = "https://host/v.mp4?version=3"  # names a version and grants no access
    (tmp_path / "m.csv").write_text("\n".join(["uri", "a.mp4", plain, *uris]))
    table, failures = list_videos(VideosConfig(uri=str(tmp_path / "m.csv")))
    assert sorted(table["uri"].to_pylist()) == [str(tmp_path / "a.mp4"), plain]
    assert len(failures) == len(uris)
    for number, failure in enumerate(failures):
        assert failure.error_kind == "manifest"
        assert f"{number}.mp4" in failure.uri
        assert "storage_options" in failure.message
    assert "5ecret" not in f"{table.to_pylist()}{failures}"


@pytest.mark.parametrize("url", SIGNED)
def test_a_url_that_is_a_credential_gets_into_no_config(url: str) -> None:
    for data in ({"videos": {"uri": url}}, {"videos": {"uri": "v"}, "out": url}):
        with pytest.raises(ConfigError, match="holds a credential") as caught:
            parse_config(data)
        assert "5ecret" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        open_url(url)
    assert "5ecret" not in str(caught.value)


def test_a_manifest_in_a_bucket_does_not_reach_local_files() -> None:
    import fsspec

    secret = Path(os.devnull)
    with fsspec.open("memory://hostile/manifest.csv", "w") as file:
        file.write(f"uri,video_id\nfile://{secret},a\nlocal://{secret},b\n../../../etc/passwd,c\n/etc/passwd,d\n")
    videos, failures = list_videos(VideosConfig(uri="memory://hostile/manifest.csv"))
    assert videos.num_rows == 0
    assert {f.video_id: f.error_kind for f in failures} == {
        "a": "manifest", "b": "manifest", "c": "missing", "d": "missing",
    }  # fmt: skip


@pytest.mark.parametrize("video_id", ["../../etc/passwd", "a/../b", " a", "a\x1b[31m"])
def test_an_id_is_not_a_way_out(tmp_path: Path, video_id: str) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "m.csv").write_text(f'uri,video_id\na.mp4,"{video_id}"\n')
    videos, failures = list_videos(VideosConfig(uri=str(tmp_path / "m.csv")))
    if video_id == " a":
        assert videos["video_id"].to_pylist() == ["a"]  # blanks around a field do not count
    else:
        assert [f.error_kind for f in failures] == ["manifest"]


def test_links_out_of_the_folder_are_refused_and_loops_end(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "videos", tmp_path / "elsewhere"
    for path in (folder / "lift" / "a.mp4", elsewhere / "secret.mp4", folder / ".store" / "x.mp4"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (folder / "lift" / "out.mp4").symlink_to(elsewhere / "secret.mp4")
    (folder / "whole").symlink_to(elsewhere)
    (folder / "lift" / "loop").symlink_to(folder)
    (folder / "lift" / "again.mp4").symlink_to(folder / "lift" / "a.mp4")
    (folder / "lift" / "kept.mp4").symlink_to(folder / ".store" / "x.mp4")  # the layout of git-annex and DVC
    (tmp_path / "entry").symlink_to(folder)  # the folder itself may be a link
    for uri in (folder, tmp_path / "entry"):
        videos, failures = list_videos(VideosConfig(uri=str(uri)))
        assert videos["video_id"].to_pylist() == ["lift/a.mp4", "lift/kept.mp4"]
        # A linked folder is not entered; a linked file is reported.
        assert [(f.video_id, f.error_kind) for f in failures] == [("lift/out.mp4", "link")]
        assert "videos.follow_links" in failures[0].message
    videos, failures = list_videos(VideosConfig(uri=str(folder), follow_links=True))
    assert "lift/out.mp4" in videos["video_id"].to_pylist()
    assert failures == []
    # A link that the config itself names is trusted.
    assert list_videos(VideosConfig(uri=str(folder / "lift" / "out.mp4")))[0].num_rows == 1


class Exploit:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickles_are_refused_wherever_a_file_is_read(tmp_path: Path) -> None:
    from vtcav_ray.models.checkpoints import read_checkpoint
    from vtcav_ray.tracks.detector_weights import load_pt

    marker = tmp_path / "ran"
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"state_dict": Exploit(marker)}, protocol=2))
    with pytest.raises(StageError, match="refused"):
        read_checkpoint(str(tmp_path / "evil.pth"))
    with pytest.raises(StageError):
        load_pt((tmp_path / "evil.pth").read_bytes(), "evil.pt")
    for name in ("evil.csv", "evil.parquet"):
        shutil.copy(tmp_path / "evil.pth", tmp_path / name)
        with pytest.raises(ConfigError):
            list_videos(VideosConfig(uri=str(tmp_path / name)))
    (tmp_path / "evil.yaml").write_text(f"videos: !!python/object/apply:os.mkdir [{marker}]\n")
    with pytest.raises(ConfigError):
        load_config(str(tmp_path / "evil.yaml"))
    with pytest.raises(ConfigError):
        load_config(
            str(Path(__file__).parents[2] / "configs/quickstart.yaml"),
            [f"name=!!python/object/apply:os.mkdir [{marker}]"],
        )
    assert not marker.exists()


def test_a_name_cannot_forge_a_line_of_the_log() -> None:
    import logging

    record = logging.LogRecord("vtcav_ray", logging.WARNING, "", 0, "gone", (), None)
    record.video = "a.mp4\nerror: all is lost\x1b[2J"
    assert "\n" not in logs.TextFormatter().format(record)
    assert "\x1b" not in logs.TextFormatter().format(record)
    assert "\n" not in logs.JsonFormatter().format(record)


@pytest.mark.browser
def test_the_page_over_training_shows_html_as_text(browser: Browser, tmp_path: Path) -> None:
    nasty = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">&amp;'\""
    link = 'javascript:alert(1)//"><b>'
    records = [
        CheckpointRecord("1", nasty, f"{nasty}_1.pth", 1, "f", 1, "done", run=link, model=nasty),
        CheckpointRecord("2", nasty, "b_2.pth", 2, "f", 1, "failed", error=nasty),
    ]
    (tmp_path / "report.html").write_text(build_page(records, {(nasty, nasty, nasty): {0: Point(1, 0, 2, 0.5, True)}}))
    with tab(browser) as lent:
        page = lent.page
        page.goto((tmp_path / "report.html").as_uri())
        assert page.title() == "Over training · Video-TCAV"
        assert page.locator("main h2").all_inner_texts() == ["Checkpoints", nasty]
        assert page.locator("img, b").count() == 0
        # Scripts that run are the page's own; the text is in blocks of data.
        assert all("owned" not in text for text in page.locator("script:not([type])").all_text_contents())
        assert page.locator("svg.spark circle").count() == 1
        assert str(page.locator("#checkpoints a").get_attribute("href")).startswith("../")
    assert [url for url in lent.requests if not url.startswith(("file:", "about:"))] == []
    assert lent.problems == []

"""Readers of tracks, on samples in the formats as they are published, and on files that are none."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.examples import examples
from tests.helpers.own_tracks import cvat_xml
from vtcav_ray.registry import TRACK_FORMATS
from vtcav_ray.tracks.formats.base import BadFile, Declared, Piece, TrackFile
from vtcav_ray.tracks.formats.json_stream import elements


@dataclass(frozen=True)
class Held(TrackFile):
    """A file in memory, with those beside it."""

    path: str
    data: bytes
    name: str = "FILE"
    others: Mapping[str, str] = field(default_factory=dict)

    def open(self) -> IO[bytes]:
        return io.BytesIO(self.data)

    def beside(self, path: str, most: int) -> bytes | None:
        return self.others[path].encode() if path in self.others else None


def read(form: str, path: str, data: str | bytes, names: list[str] | None = None, **others: str) -> Piece:
    """Read a whole file as one piece."""
    data = data.encode() if isinstance(data, str) else data
    beside = {
        name.replace("_ini", ".ini").replace("_txt", ".txt").replace("up_", "../"): t for name, t in others.items()
    }
    pieces = list(TRACK_FORMATS[form](names).read(Held(path, data, others=beside)))
    declared = {name: value for piece in pieces for name, value in piece.declared.items()}
    problems = [problem for piece in pieces for problem in piece.problems]
    return Piece(pa.concat_tables([piece.lines for piece in pieces]), declared, problems)


def rows(piece: Piece, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in piece.lines.to_pylist()]


SEQINFO = """[Sequence]
name=MOT17-02-DPM
imDir=img1
frameRate=30
seqLength=600
imWidth=1920
imHeight=1080
imExt=.jpg
"""
GT = """1,1,912,484,97,109,0,7,1
2,1,912,484,97,109,1,1,0.86
1,2,1338,418,167,379,1,1,1
5,2,1342,417.5,168,380,1,3,0.9
"""
DET = """1,-1,1359.1,413.27,120.26,362.77,2.3092,-1,-1,-1
1,-1,571.03,402.13,104.56,315.68,-0.5,-1,-1,-1
"""


def test_motchallenge_truth() -> None:
    piece = read("mot", "MOT17-02-DPM/gt/gt.txt", GT, up_seqinfo_ini=SEQINFO)
    assert piece.declared == {"": Declared(1920, 1080, 30.0, 600)}
    # Frames and pixels are counted from 1; the first line is to be ignored.
    assert rows(piece, "frame", "track", "label", "x1", "y1", "x2", "y2", "line") == [
        (1, "1", "pedestrian", 911.0, 483.0, 1008.0, 592.0, 2),
        (0, "2", "pedestrian", 1337.0, 417.0, 1504.0, 796.0, 3),
        (4, "2", "car", 1341.0, 416.5, 1509.0, 796.5, 4),
    ]


def test_motchallenge_detections_have_no_ids_and_a_confidence_in_0_to_1() -> None:
    piece = read("mot", "MOT17-02-DPM/det/det.txt", DET)
    assert rows(piece, "track", "label", "confidence") == [(None, "object", 1.0), (None, "object", 0.0)]
    assert rows(read("mot", "a.txt", "1,3,1,1,9,9,0.5,-1,-1,-1\n", ["player"]), "track", "label", "confidence") == [
        ("3", "player", 0.5)
    ]


def test_motchallenge_classes_of_cvat_and_of_the_config() -> None:
    line = "1,1,1363,569,103,241,1,2,0.86014\n"
    assert rows(read("mot", "a/gt/gt.txt", line, labels_txt="cat\ndog\n"), "label") == [("dog",)]
    assert rows(read("mot", "a/gt/gt.txt", line, ["ball", "player"], labels_txt="cat\ndog\n"), "label") == [("player",)]
    with pytest.raises(BadFile, match=r"line 1: it has class 2, and `tracks.names` has 1 names"):
        read("mot", "a/gt/gt.txt", line, ["ball"])


@pytest.mark.parametrize(
    ("path", "video"),
    [
        ("train/MOT17-02/gt/gt.txt", "train/MOT17-02"),
        ("MOT17-02/det/det.txt", "MOT17-02"),
        ("gt/gt.txt", ""),
        ("results/MOT17-02.txt", "results/MOT17-02"),
        ("MOT17-02/gt/labels.txt", None),
        ("MOT17-02/gt/notes.txt", None),
        ("MOT17-02/seqinfo.ini", None),
    ],
)
def test_motchallenge_names_videos_by_their_folders(path: str, video: str | None) -> None:
    assert TRACK_FORMATS["mot"]().video_of(path) == video


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("1,1,5", "line 2: '1,1,5' has 3 numbers"),
        ("0,1,5,5,5,5", "line 2: the frame 0: MOTChallenge counts frames from 1"),
        ("1,1,5,5,-5,5", "line 2: the box .* has no area"),
        ("1,1,5,5,nan,5", "line 2: the box .* is not finite"),
        ("1,1,x,5,5,5", "line 2: the box .* is not of four numbers"),
        ("1.5,1,5,5,5,5", "line 2: the frame '1.5' is not a whole number"),
        ("1,1,5,5,1e40,5", "line 2: the box .* is not finite"),
        ("1" * 70_000, "line 2: it has more than 65,536 bytes"),
    ],
)
def test_a_bad_line_of_motchallenge_is_named(line: str, why: str) -> None:
    with pytest.raises(BadFile, match=why):
        read("mot", "a/gt/gt.txt", f"1,1,5,5,5,5,1,1,1\n{line}\n")


def test_a_bad_seqinfo_is_named() -> None:
    for text, why in (("frameRate=30", "section"), ("[Sequence]\nframeRate=-1\n", "must be positive")):
        with pytest.raises(BadFile, match=f"seqinfo.ini.*{why}"):
            read("mot", "a/gt/gt.txt", GT, up_seqinfo_ini=text)


def test_cvat() -> None:
    boxes = [
        {"frame": 0, "box": (10.5, 20, 30, 40)},
        {"frame": 10, "box": (20, 20, 40, 40)},
        {"frame": 12, "box": (0, 0, 0, 0), "outside": True},
    ]
    text = cvat_xml([("square", boxes), ("ball", boxes[:1])], name="my task", source="clips/a.mp4")
    piece = read("cvat", "anything.xml", text)
    assert piece.declared == {"": Declared(128, 96)}
    assert rows(piece, "track", "label", "frame", "x1", "gone") == [
        ("0", "square", 0, 10.5, False),
        ("0", "square", 10, 20.0, False),
        ("0", "square", 12, 0.0, True),
        ("1", "ball", 0, 10.5, False),
    ]
    assert text.splitlines()[piece.lines["line"][1].as_py() - 1].strip().startswith('<box frame="10"')
    assert TRACK_FORMATS["cvat"]().names_inside(Held("a.xml", text.encode())) == ["clips/a.mp4", "my task"]
    assert TRACK_FORMATS["cvat"]().video_of("x/clip/annotations.xml") == "x/clip"


LAUGHS = """<?xml version="1.0"?>
<!DOCTYPE annotations [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotations><meta><task><name>&b;</name></task></meta></annotations>"""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (LAUGHS, "line 2: it has a document type"),
        ("<annotations><track", "it is not XML"),
        ("<html></html>", "line 1: its first element is <html>"),
        ('<annotations>\n<image id="0"></image></annotations>', "line 2: it is an export `CVAT for images`"),
        ('<annotations><track id="0" label="a" task_id="3"/></annotations>', "export of a whole project"),
        (
            '<annotations><track id="0" label="a">\n<polygon frame="0"/></track></annotations>',
            "line 2: it has a <polygon>",
        ),
        (
            '<annotations><track id="0" label="a">\n<box frame="0" xtl="1"/></track></annotations>',
            "line 2: a <box> has no",
        ),
        (
            '<annotations><track id="0"><box frame="0" xtl="1" ytl="1" xbr="3" ybr="3"/></track></annotations>',
            "no `label`",
        ),
        ("<a>" * 40, "its first element"),
        ("<annotations>" * 40, "nested more than 32 deep"),
    ],
)
def test_what_is_no_cvat_video_export_is_refused(text: str, why: str) -> None:
    with pytest.raises(BadFile, match=why):
        read("cvat", "a.xml", text)


YTVIS = {
    "info": {"version": "1.0"},
    "videos": [
        {"id": 1, "width": 1280, "height": 720, "length": 3,
         "file_names": ["0043f083b5/00000.jpg", "0043f083b5/00005.jpg", "0043f083b5/00010.jpg"]}
    ],
    "categories": [{"supercategory": "object", "id": 26, "name": "sedan"}],
    "annotations": [
        {"id": 9, "video_id": 1, "category_id": 26, "iscrowd": 0, "width": 1280, "height": 720, "areas": [1, None, 1],
         "bboxes": [[10.0, 20.0, 30.0, 40.0], None, [12, 20, 30, 40]],
         "segmentations": [{"counts": [1, 2], "size": [720, 1280]}, None, None]}
    ],
}  # fmt: skip
TAO = {
    "annotations": [
        {"segmentation": [[1, 2]], "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0, "id": 0, "image_id": 7,
         "category_id": 805, "track_id": 5, "_scale_uuid": "x", "video_id": 0},
        {"bbox": [2, 2, 3, 4], "id": 1, "image_id": 8, "category_id": 805, "track_id": 5, "video_id": 0},
    ],
    "images": [
        {"id": 7, "video": "train/ArgoVerse/rear_left", "frame_index": 0, "video_id": 0, "width": 64, "height": 48},
        {"id": 8, "video": "train/ArgoVerse/rear_left", "frame_index": 30, "video_id": 0, "width": 64, "height": 48},
    ],
    "videos": [{"id": 0, "name": "train/ArgoVerse/rear_left", "width": 64, "height": 48, "metadata": {}}],
    "categories": [{"id": 805, "name": "person", "synset": "person.n.01"}],
    "tracks": [{"id": 5, "category_id": 805, "video_id": 0}],
    "licenses": {"a": [1]},
}  # fmt: skip


def test_youtube_vis() -> None:
    piece = read("coco-video", "instances.json", json.dumps(YTVIS))
    assert piece.declared == {"0043f083b5": Declared(1280, 720, None, 3)}
    assert rows(piece, "video", "track", "label", "frame", "x1", "y1", "x2", "y2") == [
        ("0043f083b5", "9", "sedan", 0, 10.0, 20.0, 40.0, 60.0),
        ("0043f083b5", "9", "sedan", 2, 12.0, 20.0, 42.0, 60.0),
    ]


def test_tao_in_any_order_of_its_lists() -> None:
    expected = [("train/ArgoVerse/rear_left", "5", "person", 0), ("train/ArgoVerse/rear_left", "5", "person", 30)]
    for data in (TAO, dict(reversed(TAO.items()))):
        piece = read("coco-video", "train.json", json.dumps(data, indent=1))
        assert rows(piece, "video", "track", "label", "frame") == expected
    coco_vid = json.loads(json.dumps(TAO).replace("frame_index", "frame_id").replace("track_id", "instance_id"))
    assert rows(read("coco-video", "a.json", json.dumps(coco_vid)), "video", "track", "label", "frame") == expected


def test_a_bad_annotation_is_a_problem_of_its_video() -> None:
    for change in ({"bbox": [1, 2, -3, 4]}, {"bbox": "x"}, {"bbox": [1, 2, 10**400, 4]}, {"image_id": 99}):
        data = {**TAO, "annotations": [{**TAO["annotations"][0], **change}]}  # type: ignore[index, dict-item]
        (problem,) = read("coco-video", "a.json", json.dumps(data)).problems
        assert problem.video == "train/ArgoVerse/rear_left"
        assert problem.message.startswith("`annotations[0]`: ")
    with pytest.raises(BadFile, match=r"`annotations\[0\]` is of the video 5, which `videos` does not list"):
        read("coco-video", "a.json", json.dumps({**TAO, "annotations": [{"video_id": 5}]}))


@pytest.mark.parametrize(
    "text", ["", "[1]", "{", '{"videos": [', '{"videos": 3}', '{"videos" [1]}', "{" + '"a":[' * 3000]
)
def test_what_is_no_json_of_videos_is_refused(text: str) -> None:
    with pytest.raises(BadFile):
        read("coco-video", "a.json", text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


class Dribble(io.BytesIO):
    """A file that gives a few bytes at a time, so that every value is cut somewhere."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(3 if size is None or size < 0 or size > 3 else size)


@pytest.mark.slow
@settings(deadline=None)
@given(st.dictionaries(st.text(), st.lists(VALUES, max_size=5), max_size=3), st.sampled_from([None, 1]))
def test_lists_are_read_element_by_element_as_json_reads_them(data: dict[str, list[Any]], indent: int | None) -> None:
    text = json.dumps(data, ensure_ascii=False, indent=indent)
    found: dict[str, list[Any]] = {key: [] for key in data}
    for key, place, element in elements(Dribble(text.encode("utf-8", "surrogatepass")), set(data)):
        assert place == len(found[key])
        found[key].append(element)
    assert found == data


AVA = """-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,80,1
-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,9,1
-5KQ66BBWC4,0903,0.1,0.2,0.3,0.9,80,1
1j20qq1JyX4,0902,,,,,,
"""
SPEAKERS = """video_id,frame_timestamp,entity_box_x1,entity_box_y1,entity_box_x2,entity_box_y2,label,entity_id
f.mp4,0.04,0.1,0.2,0.3,0.4,SPEAKING_AUDIBLE,f_0000_0060:1
"""


def test_ava() -> None:
    piece = read("csv", "ava_train_v2.2.csv", AVA)
    assert rows(piece, "video", "track", "label", "time", "frame", "x1") == [
        ("-5KQ66BBWC4", "1", "80", 902.0, None, 0.077),
        ("-5KQ66BBWC4", "1", "9", 902.0, None, 0.077),
        ("-5KQ66BBWC4", "1", "80", 903.0, None, 0.1),
    ]
    assert rows(read("csv", "a.csv", "v,1,0,0,1,1,2\n", ["bend", "crouch"]), "label", "track") == [("crouch", None)]
    assert rows(read("csv", "a.csv", SPEAKERS), "video", "track", "label", "time") == [
        ("f.mp4", "f_0000_0060:1", "SPEAKING_AUDIBLE", 0.04)
    ]
    with_header = "label,frame,x1,y1,x2,y2,video_id,confidence\nball,7,0,0,0.5,0.5,v,0.25\n"
    assert rows(read("csv", "a.csv", with_header), "video", "frame", "label", "confidence") == [("v", 7, "ball", 0.25)]


def test_a_bad_line_of_csv_is_a_problem_of_its_video() -> None:
    for line, why in (
        ("v,1,100,100,200,200,9,1", "not in shares of the frame"),
        ("v,x,0,0,1,1,9,1", "the time 'x' is not a number"),
        ("v,1,0.5,0,0.4,1,9,1", "has no area"),
        ("v,1,0.5,0,nan,1,9,1", "the x2 'nan' is not finite"),
        ("v,1,0,0,1,1,,1", "a name is empty"),
    ):
        piece = read("csv", "a.csv", f"w,1,0,0,1,1,9,1\n{line}\n")
        assert [(problem.video, problem.message[:6]) for problem in piece.problems] == [("v", "line 2")]
        assert why in piece.problems[0].message
        assert rows(piece, "video") == [("w",)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a,b\n", "line 1: it has 2 cells"),
        ("video_id,time,x1,y1,x2,y2\n", "line 1: its header has no column `label`"),
        ("video_id,x1,y1,x2,y2,label\n", "`frame` and `time`"),
        ("v,1,0,0,1,1,9,1\n,1,0,0,1,1,9,1\n", "line 2: it names no video"),
        ('v,1,0,0,1,1,"9,1\n', "line 1: it is not CSV"),
    ],
)
def test_a_csv_whose_lines_mean_nothing_is_refused(text: str, why: str) -> None:
    with pytest.raises(BadFile, match=why):
        read("csv", "a.csv", text)


ROW = {"video_id": "v", "track_id": 3, "label": "cup", "frame": 4, "x1": 1.5, "y1": 2.0, "x2": 3.0, "y2": 4.0}


def parquet(rows_: list[dict[str, Any]], file: Path) -> bytes:
    pq.write_table(pa.Table.from_pylist(rows_), file)
    return file.read_bytes()


def test_parquet(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    piece = read("parquet", "a.parquet", parquet([{**ROW, "confidence": 0.5, "mine": "x"}], file))
    assert rows(piece, "video", "track", "label", "frame", "time", "x1", "confidence", "line") == [
        ("v", "3", "cup", 4, None, 1.5, 0.5, 1)
    ]
    timed = {name: value for name, value in ROW.items() if name != "frame"} | {"time": 0.25}
    assert rows(read("parquet", "a.parquet", parquet([timed], file)), "frame", "time") == [(None, 0.25)]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"x2": 1.0}, "row 2: the box 1, 2, 1, 4 (x1, y1, x2, y2) has no area"),
        ({"x1": float("nan")}, "row 2: the box nan, 2, 3, 4 is not finite"),
        ({"label": None}, "row 2: a cell is empty"),
        ({"x1": None}, "row 2: a cell is empty"),
        ({"frame": -1}, "row 2: `frame` is not a number from 0 on"),
        ({"confidence": 1.5}, "row 2: `confidence` is not between 0 and 1"),
    ],
)
def test_a_bad_row_of_parquet_is_a_problem_of_its_video(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    good = {**ROW, "x1": 1.0, "confidence": 1.0}
    data = parquet([good, {**good, "video_id": "w", **change}], tmp_path / "a.parquet")
    piece = read("parquet", "a.parquet", data)
    assert [(problem.video, problem.message) for problem in piece.problems] == [("w", why)]
    assert rows(piece, "video") == [("v",)]


def test_what_is_no_parquet_of_tracks_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    for data, why in (
        (b"PAR1", "not a readable Parquet file"),
        (parquet([{"video_id": "v"}], file), "no column `track_id`"),
        (parquet([{**ROW, "time": 1.0}], file), "`frame` .* and `time`"),
        (parquet([{**ROW, "video_id": None}, {**ROW, "video_id": "v"}], file), "row 1 has no `video_id`"),
        (parquet([{**ROW, "frame": "x"}], file), "its column `frame` can't be read"),
        (parquet([{**ROW, "frame": 1.5}], file), "its column `frame` can't be read"),
    ):
        with pytest.raises(BadFile, match=why):
            read("parquet", "a.parquet", data)


@examples(200)
@given(st.sampled_from(["mot", "cvat", "coco-video", "csv", "parquet"]), st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_or_read(form: str, data: bytes) -> None:
    with suppress(BadFile):
        assert read(form, "a.txt", data).lines.schema.names

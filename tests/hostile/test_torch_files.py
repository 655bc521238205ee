"""Torch files from somebody who means harm: tensors, zips and pickles cost no more than the file holds."""

from __future__ import annotations

import contextlib
import io
import pickle
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples, examples_in_one_folder
from tests.helpers.weight_files import network, packed, refused, saved
from vtcav_ray.errors import StageError
from vtcav_ray.models.checkpoints import read_checkpoint
from vtcav_ray.tracks.detector_weights import load_pt

TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu%btQ%b%b%b\x89}tR."
)


def number(n: int) -> bytes:
    width = (n.bit_length() + 8) // 8
    return b"\x8a" + bytes([width]) + n.to_bytes(width, "little", signed=True)


def tensor_file(stored: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...], content: bytes) -> bytes:
    """Write a checkpoint {"w": tensor} with any claims about its storage and tensor."""

    def whole(numbers: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(number(n) for n in numbers) + b"t"

    tensor = TENSOR % (number(stored), number(offset), whole(size), whole(stride))
    return packed(b"\x80\x02}X\x01\x00\x00\x00w" + tensor[:-1] + b"s.", {"0": content})


@pytest.mark.parametrize(
    ("stored", "offset", "size", "stride"),
    [
        (4, 0, (1 << 32,), (0,)), (4, 0, (5,), (1,)), (4, 3, (2,), (1,)), (4, 0, (2,), (-1,)), (4, -1, (2,), (1,)),
        (1 << 32, 0, (1 << 32,), (1,)), (4, 0, (2, 2), (1 << 40, 1)), (4, 0, (1 << 31, 1 << 31), (0, 0)),
        (4, 1 << 50, (0,), (1,)), (3, 0, (3,), (1,)), (4, 0, (-1,), (1,)), (4, 0, (2,) * 40, (0,) * 40),
    ],
)  # fmt: skip
def test_a_tensor_takes_no_more_than_the_file_holds(
    tmp_path: Path, stored: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    path = tmp_path / "hostile.pth"
    path.write_bytes(tensor_file(stored, offset, size, stride, bytes(16)))
    assert path.stat().st_size < 1500
    tracemalloc.start()
    try:
        with pytest.raises(StageError, match="refused"):
            read_checkpoint(str(path))
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_a_tensor_that_fits_is_read(tmp_path: Path) -> None:
    path = tmp_path / "fits.pth"
    path.write_bytes(tensor_file(4, 0, (2, 2), (1, 2), np.arange(4, dtype=np.float32).tobytes()))
    assert read_checkpoint(str(path)).weights["w"].tolist() == [[0, 2], [1, 3]]


def test_many_views_of_one_storage_may_not_add_up_to_more_than_the_file(tmp_path: Path) -> None:
    flat = torch.zeros(1000)
    views = {str(i): torch.as_strided(flat, (900,), (1,), i) for i in range(100)}
    (tmp_path / "views.pth").write_bytes(saved(views))
    with pytest.raises(StageError, match="together are larger"):
        read_checkpoint(str(tmp_path / "views.pth"))
    tied = {str(i): flat for i in range(100)}  # the same weights under many names take no more memory
    (tmp_path / "tied.pth").write_bytes(saved(tied))
    assert len(read_checkpoint(str(tmp_path / "tied.pth")).weights) == 100


@pytest.mark.slow
def test_zips_that_grow_are_refused(tmp_path: Path) -> None:
    bomb = packed(b"\x80\x02}.", {"0": bytes(50_000_000)}, compress=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    (tmp_path / "bomb.pth").write_bytes(bomb)
    with pytest.raises(StageError, match="compressed"):
        read_checkpoint(str(tmp_path / "bomb.pth"))
    refused(bomb, tmp_path, "compressed")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/data.pkl", b"\x80\x02}.")
    refused(buffer.getvalue(), tmp_path, "one name")


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    data = bytearray(packed(b"\x80\x02}.", {"0": bytes(4000), "1": b""}))
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        size = archive.getinfo("a/data/0").file_size
    entry = data.rindex(b"a/data/1") - 46  # its directory entry, which then claims the bytes of the whole file
    data[entry + 20 : entry + 28] = (size * 2).to_bytes(4, "little") * 2
    refused(bytes(data), tmp_path, "more bytes")


@pytest.mark.parametrize(
    ("pickled", "word"),
    [
        (b"\x80\x02(ios\nsystem\n.", "INST"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "SHORT_BINUNICODE"),
        (b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00x\x85R.", "os.system"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "model"),  # a memo of 2**31 places
        (b"\x80\x02" + b"(" * 100_000 + b".", "damaged"),
        pytest.param(b"\x80\x02)" + b"\x85" * 200_000 + b".", "model", marks=pytest.mark.slow),
        (b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"Ns.", "model"),  # hashing it would overflow the stack
        (b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".", "63 bits"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02cposix\nsystem\n.", "posix.system"),
        (b"\x80\x02ctorch\nload\n.", "torch.load"),
        (b"\x80\x02cultralytics.nn.tasks\nattempt_load_weights\n.", "attempt_load_weights"),
        (b"\x80\x02cultralytics.nn.modules.block\ntorch.load\n.", "torch.load"),
        (b"\x80\x02ctorch.nn.modules.module\n__builtins__\n.", "__builtins__"),
        (b"N.", "model"),
        (b"", "damaged"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "damaged"),
        (b"\x80\x02]q\x00h\x00a.", "model"),
        (b"\x80\x02cbuiltins\ngetattr\nctorch.nn.modules.module\nModule\nX\x04\x00\x00\x00load\x86R.", "model"),
    ],
)  # fmt: skip
def test_pickles_that_torch_never_writes(tmp_path: Path, pickled: bytes, word: str) -> None:
    refused(packed(pickled), tmp_path, word)
    (tmp_path / "hostile.pth").write_bytes(packed(pickled))
    with pytest.raises(StageError):
        read_checkpoint(str(tmp_path / "hostile.pth"))


def test_a_key_that_repeats_itself_without_end_is_not_printed(tmp_path: Path) -> None:
    laughs = b"\x80\x02})" + b"".join(b"q%c" % i + (b"h%c" % i) * 1 + b"\x86" for i in range(60)) + b"Ns."
    (tmp_path / "hostile.pth").write_bytes(packed(laughs))
    with pytest.raises(StageError) as caught:
        read_checkpoint(str(tmp_path / "hostile.pth"))
    assert len(str(caught.value)) < 2000


def test_other_containers_are_refused(tmp_path: Path) -> None:
    refused(pickle.dumps({"model": network()}), tmp_path, "zip format")
    scripted = torch.jit.script(torch.nn.Linear(2, 2))
    torch.jit.save(scripted, str(tmp_path / "script.pt"))
    refused((tmp_path / "script.pt").read_bytes(), tmp_path, "refused")
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, buffer, _use_new_zipfile_serialization=False)
    (tmp_path / "old.pth").write_bytes(buffer.getvalue())
    with pytest.raises(StageError, match=r"torch\.save"):
        read_checkpoint(str(tmp_path / "old.pth"))


def small_checkpoint() -> bytes:
    return saved({"state_dict": OrderedDict(w=torch.arange(6.0).view(2, 3)), "meta": {"classes": ["a"]}})


@pytest.mark.slow
@examples_in_one_folder(150)
@given(data=st.data())
def test_any_damage_to_a_checkpoint_is_a_clear_error(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(small_checkpoint())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(1, 3))] = data.draw(st.binary(max_size=6))
    (tmp_path / "f.pth").write_bytes(content)
    with contextlib.suppress(StageError):  # no other error is allowed
        read_checkpoint(str(tmp_path / "f.pth"))


@pytest.mark.slow
@examples(300)
@given(
    pickled=st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.sampled_from(
                [b"(", b")", b"}", b"]", b"t", b"s", b"u", b"a", b"e", b"R", b"\x81", b"b", b"Q", b"0", b"N", b"\x88",
                 b"\x85", b"\x86", b"\x87", b"q\x00", b"h\x00", b"K\x05", b"X\x05\x00\x00\x00model",
                 b"X\x01\x00\x00\x000",
                 b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n",
                 b"cultralytics.nn.tasks\nDetectionModel\n", b"ctorch.nn.modules.container\nSequential\n",
                 b"c__builtin__\nset\n", b"c__builtin__\ngetattr\n", b"ctorch\nSize\n",
                 b"X\x08\x00\x00\x00_modules", b"X\x05\x00\x00\x00names", b"X\x07\x00\x00\x00storage"]
            ),
            max_size=40,
        ).map(b"".join),
    )
)  # fmt: skip
def test_any_pickle_is_read_or_refused_clearly(pickled: bytes) -> None:
    data = packed(b"\x80\x02" + pickled + b".", {"0": bytes(64)})
    with pytest.raises(StageError, match=r"f\.pt"):
        load_pt(data, "f.pt")

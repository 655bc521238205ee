"""Read files of `torch.save` as plain data, limited by what the file really holds.

`vtcav_ray.store.pickle_data` reads the pickle inside, so nothing in the file is run. Tensors are made only of bytes in
the file: a tensor may not be larger than its storage, and all tensors together not larger than the file. Members of
the zip must be stored uncompressed, as `torch.save` stores them, so nothing grows by unpacking.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import torch

from vtcav_ray.store.pickle_data import Name, Record, RefusedPickle, Stored, read_pickle

ZIP = b"PK\x03\x04"
MOST_MEMBERS = 200_000
MOST_DIMENSIONS = 16
REBUILT_TENSOR = "torch._utils._rebuild_tensor_v2"
REBUILT_PARAMETER = "torch._utils._rebuild_parameter"
STORAGES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
DTYPES = {
    f"torch.{name}": getattr(torch, name)
    for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
}
# Names that stand for data. None of them is called: see `vtcav_ray.store.pickle_data`.
DATA_NAMES = frozenset(
    {
        REBUILT_TENSOR, REBUILT_PARAMETER, *STORAGES, *DTYPES, "torch.Size", "torch.device",
        "collections.OrderedDict", "builtins.set", "builtins.bytearray", "builtins.complex", "_codecs.encode",
    }
)  # fmt: skip

# Errors that zipfile raises for a damaged zip.
_ZIP_ERRORS = (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, ValueError, struct.error)


class RefusedFile(ValueError):
    """The file contains something that is not allowed, or claims more than it holds. The message is a clause."""


class DamagedTorchFile(ValueError):
    """The file is damaged, or not a file of `torch.save`. The message is a clause."""


class TorchFile:
    """The content of a `torch.save` file, and its tensors.

    Args:
        data: the file's bytes.
        check: see `vtcav_ray.store.pickle_data.read_pickle`; names in `DATA_NAMES` are always allowed.
        program: the file is a TorchScript archive (`is_program`), whose weights are read, and whose program is not.

    Attributes:
        content: as returned by `read_pickle`. `tensor` turns its records into tensors.

    Raises:
        RefusedFile: not in torch's zip format, or something in it is not allowed.
        DamagedTorchFile: a damaged file.
    """

    content: Any

    def __init__(self, data: bytes, check: Callable[[str, bool], None], *, program: bool = False) -> None:
        if not data.startswith(ZIP):
            raise RefusedFile(
                "it is not in the zip format of torch.save (torch 1.6 or newer), or not a file of torch at all. "
                "Convert an older file that you trust with "
                "torch.save(torch.load(OLD, weights_only=True), NEW)"
            )
        self._left = len(data)  # bytes that tensors may still take
        self._tensors: dict[int, torch.Tensor] = {}
        self._views: dict[tuple[Any, ...], torch.Tensor] = {}
        self._flat: dict[str, torch.Tensor] = {}
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except _ZIP_ERRORS as error:
            raise DamagedTorchFile(f"{error or 'it ends too early'}") from error
        self._root = _root_of(self._zip, len(data), program)
        pickled = self._member("data.pkl")
        if self._member("byteorder", b"little") != b"little":
            raise RefusedFile("it was written on a big-endian machine")
        try:
            self.content = read_pickle(pickled, lambda name, called: _check(name, called, check))
        except RefusedPickle as error:
            raise RefusedFile(str(error)) from error
        except ValueError as error:
            raise DamagedTorchFile(f"its pickle is damaged: {error}") from error

    def tensor(self, value: Any) -> torch.Tensor | None:
        """Return the tensor that a record stands for, on the CPU and without gradient; None if it stands for none.

        Raises:
            RefusedFile: the tensor is larger than what the file holds.
            DamagedTorchFile: the tensor's bytes are missing.
        """
        if not isinstance(value, Record) or not value.called:
            return None
        if value.name == REBUILT_PARAMETER:
            hooks = value.arguments[2] if len(value.arguments) > 2 else None
            if hooks or value.state is not None:
                raise RefusedFile("it holds a parameter with hooks")
            return self.tensor(value.arguments[0]) if value.arguments else None
        if value.name != REBUILT_TENSOR:
            return None
        if id(value) not in self._tensors:
            self._tensors[id(value)] = self._view(value.arguments)
        return self._tensors[id(value)]

    def _view(self, arguments: tuple[Any, ...]) -> torch.Tensor:
        if len(arguments) < 6 or not isinstance(arguments[0], Stored) or arguments[5]:
            raise RefusedFile("it holds a tensor that is not written as torch.save writes one")
        stored, offset, size, stride = arguments[:4]
        if not (_whole(offset) and _all_whole(size) and _all_whole(stride) and len(size) == len(stride)):
            raise RefusedFile("it holds a tensor with an offset, a size or a stride below 0, or none")
        kind, key, numbers = _storage(stored)
        view = (key, kind, offset, size, stride)
        if view in self._views:
            return self._views[view]
        count = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else offset
        if count > numbers or (count and last >= numbers) or offset > numbers:
            raise RefusedFile(f"it holds a tensor of size {list(size)} in a storage of {numbers} numbers")
        self._left -= count * STORAGES[kind].itemsize
        if self._left < 0:
            raise RefusedFile("its tensors together are larger than the file")
        self._views[view] = self._numbers(kind, key, numbers).as_strided(size, stride, offset)
        return self._views[view]

    def _numbers(self, kind: str, key: str, numbers: int) -> torch.Tensor:
        """Return a storage as a flat tensor, created once."""
        dtype = STORAGES[kind]
        if key not in self._flat:
            content = self._member(f"data/{key}")
            if len(content) != numbers * dtype.itemsize:
                raise RefusedFile(f"storage {key} has {len(content)} bytes, but needs {numbers} numbers of {dtype}")
            self._flat[key] = _from_bytes(content, dtype)
        flat = self._flat[key]
        if flat.dtype != dtype or len(flat) != numbers:
            raise RefusedFile(f"storage {key} is used with two types or lengths")
        return flat

    def _member(self, name: str, default: bytes | None = None) -> bytes:
        try:
            return self._zip.read(f"{self._root}{name}")
        except KeyError as error:
            if default is not None:
                return default
            raise DamagedTorchFile(f"it has no member {name}") from error
        except _ZIP_ERRORS as error:
            raise DamagedTorchFile(f"{name}: {error or 'it ends too early'}") from error


def _check(name: str, called: bool, check: Callable[[str, bool], None]) -> None:
    if name not in DATA_NAMES:
        check(name, called)


def is_program(data: bytes) -> bool:
    """Return whether a file is a TorchScript archive. Nothing in it is read but its list of members."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in archive.namelist())
    except _ZIP_ERRORS:
        return False


def _root_of(archive: zipfile.ZipFile, size: int, program: bool) -> str:
    """Return the folder in the zip that contains everything, with its slash."""
    members = archive.infolist()
    names = {member.filename for member in members}
    if len(members) > MOST_MEMBERS or len(names) != len(members):
        raise RefusedFile(f"it has members of one name, or more than {MOST_MEMBERS:,}")
    # A program's code is compressed. It is not unpacked.
    read = [m for m in members if not program or "/code/" not in m.filename]
    for member in read:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise RefusedFile(f"{member.filename} is compressed in it, which torch.save never does")
        if member.flag_bits & 1:
            raise RefusedFile(f"{member.filename} is encrypted in it")
    if sum(member.file_size for member in read) > size:
        raise RefusedFile("its members claim more bytes than the file has")
    roots = [name.removesuffix("data.pkl") for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise DamagedTorchFile("it has no data.pkl, or more than one")
    if f"{roots[0]}constants.pkl" in names and not program:
        raise RefusedFile("it is a TorchScript program, not weights")
    return roots[0]


def _storage(stored: Stored) -> tuple[str, str, int]:
    """Return type, key and number of elements of a reference to a storage."""
    reference = stored.reference
    if not isinstance(reference, tuple) or len(reference) != 5 or reference[0] != "storage":
        raise RefusedFile("it refers to something that is not a storage")
    _, kind, key, _, numbers = reference
    if not isinstance(kind, Name) or kind.name not in STORAGES or not isinstance(key, str) or not _whole(numbers):
        raise RefusedFile("it has a storage of a type that is not supported")
    return kind.name, key, numbers


def _from_bytes(content: bytes, dtype: torch.dtype) -> torch.Tensor:
    if not content:
        return torch.empty(0, dtype=dtype)
    if dtype == torch.bool:  # bytes other than 0 and 1 are not valid booleans
        return torch.frombuffer(bytearray(content), dtype=torch.uint8) != 0
    return torch.frombuffer(bytearray(content), dtype=dtype)


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _all_whole(values: Any) -> bool:
    return isinstance(values, tuple) and len(values) <= MOST_DIMENSIONS and all(_whole(v) for v in values)

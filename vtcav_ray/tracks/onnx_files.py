"""Checks of ONNX files before ONNX Runtime reads them.

An ONNX model is data, but it may refer to other files (external data, which ONNX Runtime would look for in the working
directory), to operators from third-party libraries, and to huge tensors in a few bytes. External data is read here,
only from the model's folder, and embedded in the model.
"""

from __future__ import annotations

import json
import math
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vtcav_ray.errors import StageError
from vtcav_ray.store.access import is_local, open_url, patiently
from vtcav_ray.store.reading import bytes_up_to
from vtcav_ray.tracks.detector_files import MOST_WEIGHTS_BYTES

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})  # ONNX Runtime's own operators
NOT_RUN = frozenset({"EPContext"})  # refers to a compiled engine in another file
MOST_NODES = 200_000
MOST_DEPTH = 16
MOST_ELEMENTS = 1 << 30  # per tensor
MOST_NAMES = 100_000
MOST_NAMES_CHARACTERS = 4 << 20
ORT_FORMAT = b"ORTM"
_TEXT = r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\""
_ENTRY = re.compile(rf"\s*(?:(-?\d{{1,9}})\s*:\s*)?({_TEXT})\s*(,|$)")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4}|.)")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}


def checked_onnx(data: bytes, where: str, storage_options: Mapping[str, Any] | None) -> bytes:
    """Return the bytes of a model that ONNX Runtime may load: unchanged, or with the external data embedded.

    Args:
        data: the file's bytes.
        where: its path or URL; external data lies next to it.
        storage_options: for fsspec.

    Raises:
        StageError: the file is not an ONNX model, uses an operator that is not available here, has external data
            outside the model's folder, or has tensors beyond the limits.
        OSError: the external data can't be read.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if data[4:8] == ORT_FORMAT:
        raise StageError(f"{where} is a model in ONNX Runtime's own format. Give the ONNX file (`tracks.weights`).")
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise StageError(f"{where} does not load as ONNX: {error} Export it again (`tracks.weights`).") from error
    own = {(function.domain, function.name) for function in model.functions}
    external: list[Any] = []
    for item in _parts(model, where):
        if isinstance(item, onnx.NodeProto):
            _check_node(item, own, where)
        else:
            _check_tensor(item, where)
            if item.data_location == onnx.TensorProto.EXTERNAL or item.external_data:
                external.append(item)
    _check_sizes(model, where)
    if not external:
        return data
    files = _ExternalData(where, storage_options)
    for tensor in external:
        files.put_into(tensor)
    return bytes(model.SerializeToString())


def _parts(model: Any, where: str) -> Iterator[Any]:
    """Yield every node and tensor of a model, including those of its functions and of the bodies of loops."""
    waiting: list[tuple[Any, int]] = [(model.graph, 0), *((function, 0) for function in model.functions)]
    waiting += [(info.initialization, 0) for info in model.training_info]
    waiting += [(info.algorithm, 0) for info in model.training_info]
    nodes = 0
    while waiting:
        graph, depth = waiting.pop()
        nodes += len(graph.node)
        if depth > MOST_DEPTH or nodes > MOST_NODES:
            raise StageError(f"{where} is refused: it has more than {MOST_NODES:,} nodes, or too deeply nested loops.")
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        attributes = [attribute for node in graph.node for attribute in node.attribute]
        attributes += getattr(graph, "attribute_proto", ())
        yield from graph.node
        for attribute in attributes:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            for sparse in (*attribute.sparse_tensors, attribute.sparse_tensor):
                yield from (sparse.values, sparse.indices)
            waiting += [(inner, depth + 1) for inner in attribute.graphs]
            if attribute.HasField("g"):
                waiting.append((attribute.g, depth + 1))


def _check_node(node: Any, own: set[tuple[str, str]], where: str) -> None:
    known = node.domain in DOMAINS or (node.domain, node.op_type) in own
    if not known or node.op_type in NOT_RUN:
        name = f"{node.domain or 'ai.onnx'}.{node.op_type}"
        raise StageError(
            f"{where} is refused: it needs the operator `{name[:200]}`, which is not one of ONNX's or ONNX Runtime's "
            "own; no library of operators is loaded. Export it without custom operators (`tracks.weights`)."
        )


def _check_tensor(tensor: Any, where: str) -> None:
    if any(side < 0 for side in tensor.dims) or math.prod(tensor.dims) > MOST_ELEMENTS:
        raise StageError(f"{where} is refused: its tensor {tensor.name[:100]!r} has the size {list(tensor.dims)[:16]}.")


def _check_sizes(model: Any, where: str) -> None:
    """Refuse tensors whose size is known in advance and too large for a detector: a few bytes may declare terabytes.

    ONNX Runtime folds constants when it loads a model, and would allocate them then.
    """
    import onnx

    stated = onnx.ModelProto()
    stated.CopyFrom(model)
    for tensor in stated.graph.initializer:
        if math.prod(tensor.dims) > 4096:  # weights, whose values do not determine a size
            del tensor.external_data[:]
            tensor.data_location = onnx.TensorProto.DEFAULT
            for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                tensor.ClearField(field)
    try:
        inferred = onnx.shape_inference.infer_shapes(stated, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError, UnicodeDecodeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StageError(f"{where} does not load as ONNX: {first} Export it again (`tracks.weights`).") from error
    for info in (*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input):
        sides = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        if math.prod(max(side, 1) for side in sides) > MOST_ELEMENTS:
            raise StageError(f"{where} is refused: {info.name[:100]!r} in it has the size {sides[:16]}.")


@dataclass
class _ExternalData:
    """Files next to a model: read within their own sizes, and no byte for two tensors."""

    where: str
    storage_options: Mapping[str, Any] | None

    def __post_init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._used: dict[str, int] = {}

    def put_into(self, tensor: Any) -> None:
        """Embed a tensor's external data in the tensor.

        Raises:
            StageError: the data is not next to the model, or is not as large as declared.
        """
        import onnx

        entries = {entry.key: entry.value for entry in tensor.external_data}
        name = entries.get("location", "")
        content = self._content(name)
        try:
            offset = int(entries.get("offset", 0))
            length = int(entries.get("length", len(content) - offset))
        except ValueError as error:
            raise StageError(f"{self.where} is refused: the offset of its data in {name!r} is not a number.") from error
        self._used[name] = self._used.get(name, 0) + length
        if offset < 0 or length < 0 or offset + length > len(content) or self._used[name] > len(content):
            raise StageError(f"{self.where} is refused: it reads more from {name!r} than that file contains.")
        tensor.raw_data = content[offset : offset + length]
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT

    def _content(self, name: str) -> bytes:
        if name not in self._files:
            if not name or name in (".", "..") or re.search(r"[/\\:\x00-\x1f]", name):
                raise StageError(
                    f"{self.where} is refused: its weights are in {name[:200]!r}, which is not a plain file beside it. "
                    "Export it with its weights inside (`tracks.weights`)."
                )
            self._files[name] = self._read(name)
        return self._files[name]

    def _read(self, name: str) -> bytes:
        fs, path = open_url(self.where, self.storage_options)
        path = posixpath.join(posixpath.dirname(path), name)
        if is_local(fs) and os.path.islink(path):
            raise StageError(
                f"{self.where} is refused: {name!r}, where its weights are, is a link. Put the file there."
            )

        def read() -> bytes | None:
            with fs.open(path, "rb") as file:
                return bytes_up_to(file, MOST_WEIGHTS_BYTES)

        try:
            content = patiently(read, self.where)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise StageError(
                f"{self.where} has its weights in {name!r}, and there is no such file beside it. Put it there."
            ) from error
        if content is None:
            raise StageError(f"{self.where} is refused: {name!r} is larger than {MOST_WEIGHTS_BYTES:,} bytes.")
        return content


def read_stated_names(text: str) -> dict[int, str]:
    """Parse class names from a model's metadata: `{0: 'cup', 1: "it's"}`, `['cup', 'ball']`, or either as JSON.

    The text looks like Python, but is never evaluated as Python.

    Raises:
        ValueError: the text is neither, or is too long.
    """
    text = text.strip()
    if len(text) > MOST_NAMES_CHARACTERS:
        raise ValueError(f"they have more than {MOST_NAMES_CHARACTERS:,} characters")
    numbered = text.startswith("{")
    if text[:1] + text[-1:] not in ("{}", "[]", "()"):
        raise ValueError(f"{text[:80]!r} is neither a dict nor a list of names")
    names = _names_of_json(text)
    return names if names is not None else _names_of_entries(text[1:-1].strip(), numbered)


def _names_of_json(text: str) -> dict[int, str] | None:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    pairs = enumerate(data) if isinstance(data, list) else data.items()
    found = {int(key): name for key, name in pairs if isinstance(name, str) and re.fullmatch(r"-?\d{1,9}", str(key))}
    return found if len(found) == len(data) <= MOST_NAMES else None


def _names_of_entries(body: str, numbered: bool) -> dict[int, str]:
    names: dict[int, str] = {}
    position = 0
    while position < len(body):
        found = _ENTRY.match(body, position)
        if found is None or (found[1] is not None) != numbered or len(names) >= MOST_NAMES:
            raise ValueError(f"they can't be read from {body[position : position + 80]!r} on")
        number = int(found[1]) if numbered else len(names)
        names[number] = _ESCAPE.sub(_unescaped, found[2][1:-1])
        position = found.end()
    return names


def _unescaped(found: re.Match[str]) -> str:
    code = found[1]
    return chr(int(code[1:], 16)) if len(code) > 1 else _ESCAPED.get(code, code)

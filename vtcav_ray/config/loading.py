"""Read configs from YAML files, mappings and `--set`, and check them against the schema (`vtcav_ray.config.schema`).

Errors name the key, its value, the allowed values, and the nearest valid key.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pydantic

from vtcav_ray.config import Config, ConfigSection
from vtcav_ray.errors import ConfigError
from vtcav_ray.registry import FRAMEWORKS, UnknownName
from vtcav_ray.store.assets import resolve_asset
from vtcav_ray.text.bounded_text import MOST_CHARACTERS, UnreadableText, read_yaml


def load_config(
    path: str, overrides: Sequence[str] = (), *, out: str | None = None, trust_code: bool = False
) -> Config:
    """Read a YAML config from a local path, with `key=value` overrides.

    Args:
        path: the YAML file; `asset:quickstart.yaml` is packaged.
        overrides: `a.b=value` strings; the value is read as YAML, so `[a, b]`, `1.5` and `null` have their YAML
            meaning. A number names an entry of a list: `clips.concepts.0.clips=FOLDER`.
        out: replaces the config's `out`.
        trust_code: run programs that the config names (a `.py` model config, a TensorRT engine) from URLs, too, and not
            only from this machine.

    Raises:
        ConfigError: no such file, not YAML, an unknown key, or a value that is not allowed.
    """
    file = Path(resolve_asset(path))
    if not file.is_file():
        raise ConfigError(f"No config at {path}. Name a YAML file. `vtcav init {path}` writes one.")
    try:
        data = read_yaml(_text_of(file)) or {}
    except (UnreadableText, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not readable as YAML: {' '.join(str(error).split())}. Fix that line; put text with a "
            "colon or a brace in quotes."
        ) from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold `key: value` lines at the top, not a {type(data).__name__}.")
    apply_overrides(data, overrides)
    if out is not None:
        data["out"] = out
    config = parse_config(data, where=path)
    try:  # not in the schema: a run can be read where its framework is not installed
        FRAMEWORKS.check(config.model.framework)
    except UnknownName as error:
        raise ConfigError(f"{path} is not valid:\n  `model.framework`: {error}") from error
    return config.trusting("anywhere") if trust_code else config


def read_options(path: str | None) -> dict[str, Any]:
    """Read the options in a `--storage-options` file, YAML or JSON; return no options without a file.

    Raises:
        ConfigError: no such file, or it does not contain a mapping. The message never quotes the content, which may be
            secret.
    """
    if path is None:
        return {}
    try:
        data = read_yaml(_text_of(Path(path)))
    except OSError as error:
        raise ConfigError(
            f"--storage-options {path} can't be read: {error.strerror}. Name a YAML or JSON file."
        ) from error
    except (UnreadableText, UnicodeDecodeError):
        data = None  # the error would quote the line
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigError(
            f"--storage-options {path} must hold a mapping, in YAML or JSON, of options of fsspec's file system, for "
            "example {key: ..., secret: ..., endpoint_url: ...}."
        )
    return data


def _text_of(file: Path) -> str:
    """Return a file's text, but no more than `read_yaml` accepts."""
    with file.open(encoding="utf-8") as opened:
        return opened.read(MOST_CHARACTERS + 1)


def shown_override(override: str) -> str:
    """Return a `--set` that is safe to show: without its value if that may hold credentials."""
    return f"{override.partition('=')[0]}=..." if "storage_options" in override else override


def parse_config(data: Mapping[str, Any], *, where: str = "config") -> Config:
    """Check a mapping against the schema.

    Raises:
        ConfigError: the message names every wrong key with its value, the allowed values, and the nearest valid key.
    """
    try:
        return Config.model_validate(data)
    except ConfigError as error:  # a URL that is not allowed
        raise ConfigError(f"{where} is not valid:\n  {error}") from error
    except pydantic.ValidationError as error:
        problems = "\n".join(f"  {_problem(e)}" for e in error.errors())
        raise ConfigError(f"{where} is not valid:\n{problems}") from error


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> None:
    """Apply `a.b=value` strings to a config that is not checked yet.

    Raises:
        ConfigError: not of that form, or the key is below a value that has no keys.
    """
    for override in overrides:
        _set(data, override)


def _set(data: dict[str, Any], override: str) -> None:
    key, sep, text = override.partition("=")
    if not sep or not key:
        raise ConfigError(f"--set {override!r}: write it as key=value, for example --set clips.frames=16.")
    try:
        value = read_yaml(text)
    except UnreadableText as error:
        raise ConfigError(
            f"--set {key}: the value is not readable as YAML. Put it in quotes."
        ) from error  # it may be a secret
    node: Any = data
    *parents, leaf = key.split(".")
    for part in parents:
        if isinstance(node, list):
            child = node[_place(node, part, key)]
        else:
            child = node.get(part)
            if child is None:
                child = node[part] = {}
        if not isinstance(child, dict | list):
            raise ConfigError(f"--set {key}: `{part}` is a {type(child).__name__}, which has no keys below it.")
        node = child
    if isinstance(node, list):
        node[_place(node, leaf, key)] = value
    else:
        node[leaf] = value


def _place(entries: list[Any], part: str, key: str) -> int:
    """Return the number of an entry of a list, which an override names from 0."""
    if not part.isascii() or not part.isdigit() or int(part) >= len(entries):
        raise ConfigError(f"--set {key}: `{part}` is no entry of this list. Give a number, 0 to {len(entries) - 1}.")
    return int(part)


def _problem(error: Any) -> str:
    path = [p for p in error["loc"] if not (isinstance(p, str) and p.startswith(("tuple[", "function-", "literal[")))]
    key = ".".join(str(p) for p in path)
    if error["type"] == "extra_forbidden":
        known = sorted(field.alias or name for name, field in _section_at(path[:-1]).model_fields.items())
        near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(known)}."
        return f"`{key}`: unknown key{_shown(path, error['input'])}; {hint}"
    message = error["msg"].removeprefix("Value error, ")
    shown = "" if error["type"] == "missing" else _shown(path, error["input"])
    return f"`{key or 'config'}`{shown}: {message}"


def _shown(path: Sequence[Any], value: Any) -> str:
    """Return a wrong value for the message, but nothing if it may hold credentials, by its type or its key's name."""
    if isinstance(value, dict | list) or any(
        re.search(r"option|key|secret|token|passw|cred", str(p), re.I) for p in path
    ):
        return ""
    return f" (value {value!r})"


def _section_at(path: Sequence[str | int]) -> type[ConfigSection]:
    section: type[ConfigSection] = Config
    for place, part in enumerate(path):
        field = section.model_fields.get(str(part))
        found = list(_sections_in(field.annotation)) if field is not None else []
        if found:  # of a key that is a list of sections or one of another type, the list comes first
            numbered = place + 1 < len(path) and isinstance(path[place + 1], int)
            section = found[0] if numbered else found[-1]
    return section


def _sections_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, ConfigSection):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, tuple, Annotated):
        for inner in get_args(annotation):
            yield from _sections_in(inner)

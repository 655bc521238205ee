"""Log records that say which run, stage, shard and video they are about: as text, or as one JSON object a line.

Set by `vtcav --log-format json --log-level info COMMAND`, or by VTCAV_LOG_FORMAT and VTCAV_LOG_LEVEL, which travel to
the workers. A worker writes to its own file in Ray's log folder, and nothing of that is echoed by the driver, so that
a line is never seen twice; what the driver writes (stages, shards) goes to stderr. URLs in messages and tracebacks,
which may be other libraries', are written without what may be a credential (`vtcav_ray.text.url_text`).
"""

from __future__ import annotations

import contextlib
import contextvars
import datetime
import json
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from vtcav_ray.text.url_text import cleaned

FORMAT_VARIABLE, LEVEL_VARIABLE = "VTCAV_LOG_FORMAT", "VTCAV_LOG_LEVEL"
FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")
# What a record may say besides its message: by `context`, or by `extra=` at the call.
FIELDS = ("run", "stage", "shard", "video", "clip", "kind", "checkpoint", "attempt", "failures", "seconds")
LOGGER = "vtcav_ray"

_context: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("vtcav_log_context", default=None)


@contextlib.contextmanager
def context(**fields: Any) -> Iterator[None]:
    """Every record made inside the block carries these fields (see `FIELDS`)."""
    token = _context.set({**(_context.get() or {}), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def configure(form: str | None = None, level: str | None = None, stream: TextIO | None = None) -> None:
    """Send this package's records to one handler; called again, it replaces that handler.

    Args:
        form: `text` or `json`; None: VTCAV_LOG_FORMAT, or text.
        level: the least that is shown; None: VTCAV_LOG_LEVEL, or `info` for JSON and `warning` for text.
        stream: None: stderr.

    Raises:
        ValueError: a format or level that does not exist.
    """
    form = (form or os.environ.get(FORMAT_VARIABLE) or "text").lower()
    level = (level or os.environ.get(LEVEL_VARIABLE) or ("info" if form == "json" else "warning")).lower()
    if form not in FORMATS:
        raise ValueError(f"log format {form!r}: choose one of {', '.join(FORMATS)}")
    if level not in LEVELS:
        raise ValueError(f"log level {level!r}: choose one of {', '.join(LEVELS)}")
    os.environ[FORMAT_VARIABLE], os.environ[LEVEL_VARIABLE] = form, level  # for worker processes
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logger = logging.getLogger(LOGGER)
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False  # the root's handlers, which other packages set, would print each line once more


def environment() -> dict[str, str]:
    """Variables that make a worker log as this process does."""
    return {name: os.environ[name] for name in (FORMAT_VARIABLE, LEVEL_VARIABLE) if name in os.environ}


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a record says besides its message; what the call said goes before its context."""
    said = {**(_context.get() or {}), **{k: v for k in FIELDS if (v := getattr(record, k, None)) is not None}}
    found = {name: said[name] for name in FIELDS if said.get(name) is not None}
    return {name: cleaned(value) if isinstance(value, str) else value for name, value in found.items()}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, fields, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        line = {
            "time": time,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": cleaned(record.getMessage()),
        }
        line |= fields_of(record)
        if record.exc_info:
            line["traceback"] = cleaned(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """`level: message (stage=tracks video=a.mp4)`, for people. Control characters can't forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={value}" for name, value in fields_of(record).items())
        text = f"{record.levelname.lower()}: {cleaned(record.getMessage())}" + (f" ({fields})" if fields else "")
        text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
        return text + (f"\n{cleaned(self.formatException(record.exc_info))}" if record.exc_info else "")

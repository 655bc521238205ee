"""Log records that name their run, stage, shard and video: as text, or as one JSON object per line.

`vtcav --log-format json --log-level info COMMAND` sets format and level, and so do VTCAV_LOG_FORMAT and
VTCAV_LOG_LEVEL; the workers receive both. A worker writes to its own file in Ray's log folder. The driver does not echo
that file, so no line appears twice. The driver's own records (stages, shards) go to stderr. URLs in messages and
tracebacks, also those of other libraries, are written without possible credentials (`vtcav_ray.text.url_text`).
"""

from __future__ import annotations

import contextlib
import contextvars
import datetime
import json
import logging
import logging.handlers
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from vtcav_ray.text.url_text import cleaned

FORMAT_VARIABLE, LEVEL_VARIABLE = "VTCAV_LOG_FORMAT", "VTCAV_LOG_LEVEL"
FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")
# Fields of a record besides its message. `context` sets them, or `extra=` at the call.
FIELDS = ("run", "stage", "shard", "video", "clip", "kind", "checkpoint", "attempt", "failures", "seconds")
LOGGER = "vtcav_ray"

_context: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("vtcav_log_context", default=None)


@contextlib.contextmanager
def context(**fields: Any) -> Iterator[None]:
    """Add fields (see `FIELDS`) to every record made inside the block."""
    token = _context.set({**(_context.get() or {}), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def configure(form: str | None = None, level: str | None = None, stream: TextIO | None = None) -> None:
    """Send this package's records to one handler. A second call replaces the handler.

    Args:
        form: `text` or `json`; None: VTCAV_LOG_FORMAT, or text.
        level: the lowest level that is shown; None: VTCAV_LOG_LEVEL, or `info` for JSON and `warning` for text.
        stream: where the handler writes; None: stderr.

    Raises:
        ValueError: the format or level does not exist.
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
    logger.propagate = False  # handlers that other packages add to the root logger would print each line again


class _Keep(logging.handlers.QueueHandler):
    """Append records to a list. The base class turns arguments and tracebacks into text, so that records pickle."""

    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue.append(record)  # type: ignore[attr-defined]


@contextlib.contextmanager
def kept() -> Iterator[list[logging.LogRecord]]:
    """Keep this package's records inside the block, in a form that can be pickled, instead of writing them."""
    configure()
    logger, records = logging.getLogger(LOGGER), list[logging.LogRecord]()
    before, logger.handlers = logger.handlers, [_Keep(records)]  # type: ignore[arg-type]
    try:
        yield records
    finally:
        logger.handlers = before


def environment() -> dict[str, str]:
    """Return the environment variables that make a worker log as this process does."""
    return {name: os.environ[name] for name in (FORMAT_VARIABLE, LEVEL_VARIABLE) if name in os.environ}


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return a record's fields besides its message. Fields given at the call override those of the context."""
    said = {**(_context.get() or {}), **{k: v for k in FIELDS if (v := getattr(record, k, None)) is not None}}
    found = {name: said[name] for name in FIELDS if said.get(name) is not None}
    return {name: cleaned(value) if isinstance(value, str) else value for name, value in found.items()}


class JsonFormatter(logging.Formatter):
    """A formatter for one JSON object per line: time (UTC), level, logger, message, fields, and any traceback."""

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
    """A formatter for people: `level: message (stage=tracks video=a.mp4)`. Control characters can't forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={value}" for name, value in fields_of(record).items())
        text = f"{record.levelname.lower()}: {cleaned(record.getMessage())}" + (f" ({fields})" if fields else "")
        text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
        return text + (f"\n{cleaned(self.formatException(record.exc_info))}" if record.exc_info else "")

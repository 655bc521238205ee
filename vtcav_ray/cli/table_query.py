"""Choose rows and columns of a table: `--columns`, `--where`, `--sort`, `--limit`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray.errors import ConfigError
from vtcav_ray.text.name_lists import NameIndex

_CONDITION = re.compile(r"\s*([^=!<>~]+?)\s*(!=|<=|>=|=|<|>|~)\s*(.*?)\s*", re.DOTALL)
_COMPARE: dict[str, Callable[..., pa.ChunkedArray]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
HOW = "write COLUMN=VALUE, with one of = != < <= > >= ~ (contains), for example --where 'layer=late'"
_TRUE = {"true": True, "false": False}


@dataclass(frozen=True)
class TableQuery:
    """What to show of a table.

    Attributes:
        columns: names, in the order to show; None: all.
        where: conditions that a row must all meet: `layer=late`, `p<=0.05`, `message~codec`, `label=null`.
        sort: columns to sort by, the most important first; `-z` sorts by falling values. Missing values come last.
        limit: maximum number of rows; None: all.
    """

    columns: Sequence[str] | None = None
    where: Sequence[str] = ()
    sort: Sequence[str] = ()
    limit: int | None = None

    @property
    def needs_all_rows(self) -> bool:
        """Whether the first rows depend on all rows of the table."""
        return bool(self.where or self.sort)

    def of(self, rows: pa.Table) -> pa.Table:
        """Return the chosen rows and columns.

        Raises:
            ConfigError: the table has no such column, or a condition can't be read. The message says what to write.
        """
        for condition in self.where:
            rows = rows.filter(_mask(rows, condition))
        if self.sort:
            keys = [(_known(rows, name.lstrip("-"), "--sort"), _order(name)) for name in self.sort]
            for name, _ in keys:
                if pa.types.is_nested(rows.schema.field(name).type):
                    raise ConfigError(f"--sort {name}: this column holds lists, which have no order.")
            rows = rows.take(pc.sort_indices(rows, sort_keys=keys))
        if self.limit is not None:
            rows = rows.slice(0, self.limit)
        if self.columns is not None:
            rows = rows.select([_known(rows, name, "--columns") for name in self.columns])
        return rows


def names_of(text: str | None) -> list[str] | None:
    """Return the names of a comma-separated list; None if there is no list."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _order(name: str) -> str:
    return "descending" if name.startswith("-") else "ascending"


def _known(rows: pa.Table, name: str, option: str) -> str:
    if name in rows.column_names:
        return name
    near = NameIndex(rows.column_names).nearest(name)
    hint = f"Did you mean `{near}`? " if near is not None else ""
    raise ConfigError(f"{option}: the table has no column `{name}`. {hint}It has: {', '.join(rows.column_names)}.")


def _mask(rows: pa.Table, condition: str) -> pa.ChunkedArray:
    found = _CONDITION.fullmatch(condition)
    if found is None:
        raise ConfigError(f"--where {condition!r}: {HOW}.")
    name, sign, text = found.groups()
    column = rows[_known(rows, name, "--where")]
    kind = column.type
    if text == "null" and sign in ("=", "!="):
        return pc.is_null(column) if sign == "=" else pc.is_valid(column)
    if sign == "~" and pa.types.is_string(kind):
        return pc.match_substring(column, text, ignore_case=True)
    if sign == "~" or pa.types.is_nested(kind) or pa.types.is_binary(kind):
        raise ConfigError(f"--where {condition!r}: `{name}` is of type {kind}, which can't be compared so.")
    return _COMPARE[sign](column, _value(text, kind, condition))


def _value(text: str, kind: pa.DataType, condition: str) -> pa.Scalar:
    """Return the value of a condition in the column's type; numbers as float64, so that `n>2.5` works."""
    if pa.types.is_string(kind):
        return pa.scalar(text)
    if pa.types.is_boolean(kind):
        if text.lower() not in _TRUE:
            raise ConfigError(f"--where {condition!r}: write true or false.")
        return pa.scalar(_TRUE[text.lower()])
    if pa.types.is_integer(kind) and re.fullmatch(r"[+-]?\d{1,18}", text):
        return pa.scalar(int(text))
    try:
        return pa.scalar(float(text))
    except ValueError as error:
        raise ConfigError(f"--where {condition!r}: {text!r} is not a number, and this column holds numbers.") from error

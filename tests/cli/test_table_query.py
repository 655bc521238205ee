"""`vtcav table`: rows and columns are chosen, and what can't be chosen is explained."""

from __future__ import annotations

import io
import json
import sys

import pyarrow as pa
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.helpers.planted_run import PlantedRun
from vtcav_ray import cli
from vtcav_ray.cli.table_query import TableQuery, names_of
from vtcav_ray.cli.tables import print_table
from vtcav_ray.errors import ConfigError
from vtcav_ray.stages import ALL_TABLES

ROWS = pa.table(
    {
        "class": ["lift", "drop", "lift", "push"],
        "layer": ["late", "late", "head", None],
        "effect": [0.5, -2.0, None, 1.5],
        "n": pa.array([3, 10, 2, 7], pa.int32()),
        "called": [True, False, True, False],
        "vector": [[1.0], [2.0], [3.0], [4.0]],
    }
)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        (["class=lift"], [0, 2]),
        (["class != lift"], [1, 3]),
        (["class=lift", "layer=head"], [2]),
        (["effect>=0.5"], [0, 3]),
        (["effect<-1e0"], [1]),
        (["n>2.5"], [0, 1, 3]),
        (["n<=3"], [0, 2]),
        (["called=true"], [0, 2]),
        (["layer=null"], [3]),
        (["effect!=null"], [0, 1, 3]),
        (["class~US"], [3]),
    ],
)
def test_conditions_choose_rows(where: list[str], rows: list[int]) -> None:
    assert TableQuery(where=where).of(ROWS).to_pylist() == ROWS.take(rows).to_pylist()


def test_rows_are_sorted_before_they_are_cut_off() -> None:
    def order(*sort: str, limit: int | None = None) -> list[int]:
        return TableQuery(sort=sort, limit=limit).of(ROWS)["n"].to_pylist()

    assert order("n") == [2, 3, 7, 10]
    assert order("-effect") == [7, 3, 10, 2]  # missing values come last
    assert order("effect") == [10, 3, 7, 2]
    assert order("class", "-n") == [10, 3, 2, 7]
    assert order("-n", limit=2) == [10, 7]


def test_columns_come_in_the_order_given_and_conditions_may_use_others() -> None:
    found = TableQuery(names_of(" n, class"), ["called=false"], ["-effect"]).of(ROWS)
    assert found.column_names == ["n", "class"]
    assert found["n"].to_pylist() == [7, 10]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (TableQuery(["efect"]), ["--columns", "`efect`", "Did you mean `effect`?", "It has: class, layer"]),
        (TableQuery(sort=["-zzz"]), ["--sort", "`zzz`", "It has: class"]),
        (TableQuery(where=["layr=x"]), ["--where", "Did you mean `layer`?"]),
        (TableQuery(where=["layer"]), ["COLUMN=VALUE"]),
        (TableQuery(where=["n=many"]), ["'many' is not a number"]),
        (TableQuery(where=["called=yes"]), ["write true or false"]),
        (TableQuery(where=["vector=1"]), ["can't be compared"]),
        (TableQuery(where=["n~1"]), ["can't be compared"]),
        (TableQuery(sort=["vector"]), ["have no order"]),
    ],
)
def test_what_is_wrong_is_explained(query: TableQuery, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        query.of(ROWS)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_messages_are_shown_whole_and_other_cells_are_shortened() -> None:
    long = "the codec of this video is not supported: convert it with ffmpeg -i IN -c:v libx264 OUT"
    console = Console(width=40, file=io.StringIO())
    print_table(pa.table({"message": [long], "uri": [long]}), "table", console, sys.stdout.buffer)
    assert console.file.getvalue().count("OUT") == 1  # type: ignore[attr-defined]


@pytest.mark.slow
def test_every_table_is_listed_and_can_be_read(planted: PlantedRun) -> None:
    url = planted.run.url
    listed = CliRunner().invoke(cli.app, ["table", url])
    assert listed.exit_code == 0, listed.output
    shown = {line.split()[0]: line.split() for line in listed.output.splitlines()[1:] if line.strip()}
    assert set(ALL_TABLES) <= set(shown)
    assert int(shown["scores"][2].replace(",", "")) == planted.run.table("scores").num_rows
    words = [
        "table",
        url,
        "scores",
        "--format",
        "json",
        "--columns",
        "class,effect",
        "--sort",
        "-effect",
        "--limit",
        "3",
    ]
    found = CliRunner().invoke(cli.app, words)
    assert found.exit_code == 0, found.output
    rows = json.loads(found.output)
    assert len(rows) == 3
    assert list(rows[0]) == ["class", "effect"]

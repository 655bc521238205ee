"""docs/tables.md agrees with vtcav_ray/tables/, and that has a schema for every table of a stage."""

from __future__ import annotations

from tools.tables_page import PAGE, page
from vtcav_ray import stages, tables


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run `python tools/tables_page.py` and commit docs/tables.md"


def test_every_table_of_a_stage_has_a_schema_and_every_schema_a_stage() -> None:
    written = {table for stage in stages.ALL_STAGES for table in stage.tables}
    assert written | {"failures"} == set(tables.EMPTY_SCHEMAS)
    assert {table for stage in stages.ALL_STAGES for table in stage.side_tables} == set(tables.SIDE_SCHEMAS)

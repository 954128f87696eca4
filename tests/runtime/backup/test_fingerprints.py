"""The fingerprint over generated tables: equal when restored, another when anything is another."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql

from kilo.backup.programs import environment_of
from kilo.backup.restore import compare
from kilo.testing.servers.postgres import PostgresServer
from sandbox.toolchain import path
from tests.runtime.backup.test_values import execute, fingerprints

TYPES = {
    "text": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
    "int": st.integers(-(2**31), 2**31 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "numeric": st.sampled_from(["NaN", "1.0", "1.00", "-0.5", "12345678901234567890.1234", "1e50"]),
    "float8": st.floats(),
    "bool": st.booleans(),
    "bytea": st.binary(max_size=8),
    "timestamptz": st.datetimes(timezones=st.timezones()).map(lambda at: at.isoformat()),
    "interval": st.timedeltas(),
    "uuid": st.uuids(),
    "jsonb": st.sampled_from(['{"a": 1.0}', '{"a": 1.00}', "[]", '""', "null"]),
    "varbit": st.sampled_from(["", "101"]),
    "mood": st.sampled_from(["calm", "loud", "odd"]),
    "mood[]": st.sampled_from(["{}", "{calm}", "{calm,loud}", "{NULL}", "[2:2]={calm}"]),
    "pair": st.sampled_from(["(calm,)", '(,"")', "(,)", "(loud,x)"]),
}
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=6)


@dataclass(frozen=True)
class Sample:
    """A table's columns (name and type), its rows, and the cell to change."""

    columns: Sequence[tuple[str, str]]
    rows: Sequence[tuple[object, ...]]
    row: int
    column: int


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    some = NAMES | st.sampled_from(["t", "x", "count"])
    names = draw(st.lists(some, min_size=1, max_size=4, unique=True))
    columns = [(name, draw(st.sampled_from(sorted(TYPES)))) for name in names]
    row = st.tuples(*(st.none() | TYPES[type_] for _, type_ in columns))
    rows = draw(st.lists(row, min_size=1, max_size=5))
    cell = draw(st.integers(0, len(rows) - 1)), draw(st.integers(0, len(columns) - 1))
    return Sample(columns, rows, *cell)


@pytest.fixture(scope="module")
def pair_of_urls(postgres: PostgresServer) -> tuple[str, str]:
    """Two databases with the same types under other OIDs."""
    urls: list[str] = []
    for name in ("properties_source", "properties_target"):
        execute(postgres.url, [f"CREATE DATABASE {name}"])
        urls.append(postgres.url_of(name))
        types = ["CREATE TYPE mood AS ENUM ('calm', 'loud', 'odd')", "CREATE TYPE pair AS (a mood, b text)"]
        execute(urls[-1], types if len(urls) == 1 else ["CREATE TYPE shift AS ENUM ('a', 'b')", *types])
    return urls[0], urls[1]


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(sample=samples())
@example(sample=Sample([("t", "varbit"), ("x", "text")], [("", "a"), (None, "")], 0, 0))
def test_equal_when_restored_and_another_when_anything_is(
    sample: Sample, pair_of_urls: tuple[str, str]
) -> None:
    source, target = pair_of_urls
    names = [sql.Identifier(name) for name, _ in sample.columns]
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS sample")
        columns = [
            f"{name.as_string()} {type_}" for name, (_, type_) in zip(names, sample.columns, strict=True)
        ]
        connection.execute(f"CREATE TABLE sample ({', '.join(columns)})".encode())
        places = [
            "%s" if type_ in {"bytea", "interval"} else f"%s::text::{type_}" for _, type_ in sample.columns
        ]
        insert = f"INSERT INTO sample VALUES ({', '.join(places)})".encode()
        for row in sample.rows:
            connection.execute(insert, row)
    before = fingerprints(source)
    execute(target, ["DROP TABLE IF EXISTS sample"])
    programs = path("postgres")
    dump = subprocess.run(
        [programs / "pg_dump", "--format=custom", "--table=sample"],
        env=os.environ | environment_of(source),
        capture_output=True,
        check=True,
    )
    subprocess.run(
        [programs / "pg_restore", "--exit-on-error", "--dbname=properties_target"],
        env=os.environ | environment_of(target),
        input=dump.stdout,
        check=True,
    )
    assert compare(before, fingerprints(target)) == []

    name = names[sample.column]
    with psycopg.connect(target) as connection:
        read = sql.SQL("SELECT {}::text FROM sample OFFSET {} LIMIT 1").format(name, sample.row)
        [was] = connection.execute(read).fetchall()[0]
    others = ["calm", "loud", "1", "0", "{}", "{calm}", "(calm,q)", "t", "f", "2000-01-01Z", "1 day", "\\x01",
              "00000000-0000-0000-0000-000000000001"]  # fmt: skip
    changes = ["NULL"] if was is not None else []
    with psycopg.connect(target, autocommit=True) as connection:
        for other in others:
            try:
                cast = f"SELECT %s::{sample.columns[sample.column][1]}::text".encode()
                [now] = connection.execute(cast, [other]).fetchall()[0]
            except psycopg.Error:
                continue
            changes += [f"'{other}'"] if now != was else []
    place = f"(SELECT ctid FROM sample OFFSET {sample.row} LIMIT 1)"
    quoted = name.as_string()
    statements = [f"UPDATE sample SET {quoted} = {value} WHERE ctid = {place}" for value in changes[:3]]
    statements += [
        f"DELETE FROM sample WHERE ctid = {place}",
        f"INSERT INTO sample SELECT * FROM sample WHERE ctid = {place}",
        f'ALTER TABLE sample RENAME {quoted} TO "another name"',
        "ALTER TABLE sample ADD more int",
    ]
    for statement in statements:
        execute(target, ["CREATE TABLE kept AS SELECT * FROM sample", statement])
        changed = {"public.sample": fingerprints(target)["public.sample"]}
        assert compare(before, changed) != [], statement
        execute(target, ["DROP TABLE sample", "ALTER TABLE kept RENAME TO sample"])


def test_a_large_object_is_hashed_page_by_page(empty_database_url: str) -> None:
    """One of 600 MB is more than a gigabyte in hexadecimal, which PostgreSQL has no value for."""
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("SELECT lo_create(4711)")
        connection.execute("SELECT lo_truncate64(lo_open(4711, 131072), 600000000)")
    before = fingerprints(empty_database_url)
    assert before["large objects"].rows == 1
    execute(empty_database_url, ["SELECT lo_put(4711, 599999999, 'x')"])
    one_byte = fingerprints(empty_database_url)
    assert compare(before, one_byte) == ["large objects has other contents"]
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("SELECT lo_truncate64(lo_open(4711, 131072), 600000001)")
    assert compare(one_byte, fingerprints(empty_database_url)) == ["large objects has other contents"]

"""The locale of a database: what lower(), sorting and text search give, and so generated columns and indexes.

A restore into another locale may fail or differ: a generated column is computed anew, a row may belong into
another partition. So a drill makes its database with the locale of the source, and where its server can't,
with the nearest that it has, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from kilo.backup.manifest import Locale
from kilo.backup.programs import one_line

_LOCALE = """
SELECT pg_encoding_to_char(d.encoding), coalesce(to_jsonb(d) ->> 'datlocprovider', 'c'), d.datcollate,
  d.datctype,
  coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', ''),
  coalesce(to_jsonb(d) ->> 'daticurules', ''), coalesce(to_jsonb(d) ->> 'datcollversion', '')
FROM pg_database d WHERE d.datname = current_database()"""
_PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}


@dataclass(frozen=True, slots=True)
class Substitute:
    """A database that could not be made in the locale of the source: in which it is, and why."""

    wanted: Locale
    made: Locale
    reason: str

    def __str__(self) -> str:
        return (
            f"the source's locale is {describe(self.wanted)}, which the drill's server has not"
            f" ({self.reason}); drilled in {describe(self.made)}, where lower(), upper() and the order of"
            " text may differ, and with them generated columns, partitions of text, indexes over expressions"
        )


def describe(locale: Locale) -> str:
    """A locale in a few words."""
    name = locale.locale or f"{locale.collate}/{locale.ctype}"
    version = f" {locale.version}" if locale.version else ""
    return f"{locale.provider} {name}{version} in {locale.encoding}"


def read_locale(connection: psycopg.Connection[Any]) -> Locale:
    """The locale of the connection's database."""
    row: Any = connection.execute(_LOCALE).fetchone()
    encoding, provider, collate, ctype, locale, rules, version = row
    return Locale.model_validate(
        {
            "encoding": encoding,
            "provider": _PROVIDERS.get(provider, provider),
            "collate": collate,
            "ctype": ctype,
            "locale": locale,
            "icu_rules": rules,
            "version": version,
        }
    )


def create_database(connection: psycopg.Connection[Any], name: str, locale: Locale) -> Substitute | None:
    """Create a database in ``locale``, or in the nearest that the server has.

    Args:
        connection: a superuser's, in autocommit mode.
        name: its name.
        locale: as the source has it.

    Returns:
        What it is instead, or None where it is as it was asked for, but for the version of its collations.
    """
    reason = ""
    for wanted in _nearest(locale):
        try:
            connection.execute(_statement(name, wanted))
        except psycopg.Error as error:
            reason = reason or one_line(error)
            continue
        return Substitute(locale, wanted, reason) if reason else None
    msg = "PostgreSQL can't make a database in the locale C"
    raise AssertionError(msg)


def _nearest(locale: Locale) -> Iterator[Locale]:
    yield locale
    # ICU and the C library of another system agree with the C.UTF-8 of both others on letters, not on order.
    if locale.encoding == "UTF8":
        yield Locale(encoding="UTF8", provider="builtin", collate="C", ctype="C", locale="C.UTF-8")
        yield Locale(encoding="UTF8", provider="libc", collate="C.UTF-8", ctype="C.UTF-8")
    yield Locale(encoding=locale.encoding, provider="libc", collate="C", ctype="C")


def _statement(name: str, locale: Locale) -> sql.Composed:
    options: dict[str, str] = {
        "ENCODING": locale.encoding,
        "LC_COLLATE": locale.collate,
        "LC_CTYPE": locale.ctype,
    }
    if locale.provider != "libc":
        options["LOCALE_PROVIDER"] = locale.provider
        options["ICU_LOCALE" if locale.provider == "icu" else "BUILTIN_LOCALE"] = locale.locale
    if locale.icu_rules:
        options["ICU_RULES"] = locale.icu_rules
    told = sql.SQL(" ").join(
        sql.SQL("{} = {}").format(sql.SQL(key), value)  # pyright: ignore[reportArgumentType]
        for key, value in options.items()
    )
    return sql.SQL("CREATE DATABASE {} TEMPLATE template0 {}").format(sql.Identifier(name), told)

"""Rows at the speed of their statements: the ORM's models, without making its SQL anew each time.

For the tables that a fill and an order wait for. Values go through each field's own conversion; `make bench` tells
what it saves.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from django.db import connection
from django.db.models import Model

Row = TypeVar("Row", bound=Model)


def insert(row: Row) -> Row:
    """Write a new row with every column it has, and give it its key. Raises what the database raises."""
    columns, statement = _statement(type(row))
    values = [field.get_db_prep_save(getattr(row, field.attname), connection) for field in columns]
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        (row.pk,) = cursor.fetchone()
    row._state.adding, row._state.db = False, connection.alias
    return row


@cache
def _statement(model: type[Model]) -> tuple[list[Any], str]:
    """Return the columns to fill, all but the key, and the statement that takes them in this order."""
    quote, meta = connection.ops.quote_name, model._meta
    columns = [field for field in meta.concrete_fields if not field.primary_key]
    names, places = ", ".join(quote(field.column) for field in columns), ", ".join(["%s"] * len(columns))
    return columns, (
        f"INSERT INTO {quote(meta.db_table)} ({names}) VALUES ({places}) RETURNING {quote(meta.pk.column)}"  # noqa: S608
    )


def update(model: type[Model], pk: int, values: Mapping[str, Any], *, seen: Mapping[str, Any] | None = None) -> bool:
    """Change columns of one row, by the names of its fields; False where it is not as `seen` any more.

    Raises FieldDoesNotExist, and what the database raises.
    """
    fields, statement = _change(model, tuple(values), tuple(seen or ()))
    told = [*values.values(), pk, *(seen or {}).values()]
    with connection.cursor() as cursor:
        saved = (field.get_db_prep_save(value, connection) for field, value in zip(fields, told, strict=True))
        cursor.execute(statement, list(saved))
        return bool(cursor.rowcount)


@cache
def _change(model: type[Model], names: tuple[str, ...], seen: tuple[str, ...]) -> tuple[list[Any], str]:
    """Return the fields to fill, in the order of their places, and the statement that changes the row."""
    quote, meta = connection.ops.quote_name, model._meta
    changed, known = [meta.get_field(name) for name in names], [meta.pk, *map(meta.get_field, seen)]
    setting = ", ".join(f"{quote(field.column)} = %s" for field in changed)
    where = " AND ".join(f"{quote(field.column)} = %s" for field in known)
    return [*changed, *known], f"UPDATE {quote(meta.db_table)} SET {setting} WHERE {where}"  # noqa: S608

"""Reads and writes rows of the ORM's models without building SQL for each call.

For the tables that a fill and an order wait for. Values go through each field's own conversion; `make bench` measures
what it saves.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import cache, partial
from typing import Any, TypeVar

from django.db import connection
from django.db.models import BooleanField, CharField, IntegerField, Model, TextField

Row = TypeVar("Row", bound=Model)
# the rest of a transaction does not wait for the disk
FAST = "SELECT set_config('synchronous_commit', 'off', true)"


def insert(row: Row) -> Row:
    """Write a new row with every column it has, and give it its key. Raises what the database raises."""
    with connection.cursor() as cursor:
        cursor.execute(insertion(type(row)), values(row))
        return added(row, cursor.fetchone()[0])


def added(row: Row, pk: int) -> Row:
    """Give a row that was just written its key."""
    row.pk = pk
    row._state.adding, row._state.db = False, connection.alias
    return row


def values(row: Model, leave_out: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return what a row is written with, by the names of its columns, all but the key and those left out."""
    return {
        column: save(getattr(row, name)) if save else getattr(row, name)
        for column, name, save in _saving(type(row), leave_out)
    }


def places(model: type[Model], leave_out: frozenset[str] = frozenset()) -> tuple[str, str]:
    """Return the names of the columns, and where `values` takes their place, as an INSERT wants them.

    Those left out get what the database gives them.
    """
    names = [field.column for field in _columns(model, leave_out)]
    return ", ".join(map(connection.ops.quote_name, names)), ", ".join(f"%({name})s" for name in names)


@cache
def _columns(model: type[Model], leave_out: frozenset[str] = frozenset()) -> list[Any]:
    fields = model._meta.concrete_fields
    return [field for field in fields if not field.primary_key and field.attname not in leave_out]


@cache
def _saving(model: type[Model], leave_out: frozenset[str]) -> list[tuple[str, str, Callable[[Any], Any] | None]]:
    """Return each column, the attribute that it is written from, and what converts it, None if nothing need to."""
    return [(field.column, field.attname, _conversion(field)) for field in _columns(model, leave_out)]


def _conversion(field: Any) -> Callable[[Any], Any] | None:
    """Return a field's own conversion, or what it comes to for the values that a row of ours has."""
    kind = field.get_internal_type()
    if type(field) in (BooleanField, CharField, TextField):
        return None
    if isinstance(field, IntegerField):
        return partial(connection.ops.adapt_integerfield_value, internal_type=kind)
    return lambda value: field.get_db_prep_save(value, connection)


@cache
def insertion(model: type[Model]) -> str:
    """Return the statement that writes a row by its `values` and returns its key."""
    names, filled = places(model)
    table, key = connection.ops.quote_name(model._meta.db_table), _quoted(_field(model, "pk"))
    return f"INSERT INTO {table} ({names}) VALUES ({filled}) RETURNING {key}"  # noqa: S608


def select(model: type[Row], values: Mapping[str, Any], *, lock: bool = False) -> list[Row]:
    """Return the rows whose columns have these values, by the names of their fields; under their locks if wanted."""
    saved = [_field(model, name).get_db_prep_save(value, connection) for name, value in values.items()]
    return _rows(model, _selection(model, tuple(values), lock), saved)


def _rows(model: type[Row], statement: str, values: Any) -> list[Row]:
    """Return the rows of a statement that returns all columns of a model, in their order."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return [from_row(model, row) for row in cursor.fetchall()]


def from_row(model: type[Row], row: Sequence[Any]) -> Row:
    """Return the object of a row that has all `columns`."""
    names, converted = _reading(model)
    values = list(row)
    for place, field in converted:
        values[place] = field.from_db_value(values[place], None, connection)
    return model.from_db(connection.alias, names, values)


@cache
def _reading(model: type[Model]) -> tuple[list[str], list[tuple[int, Any]]]:
    """Return the names of a model's columns, and the places of those that the driver knows otherwise."""
    fields = model._meta.concrete_fields
    converted = [(place, field) for place, field in enumerate(fields) if hasattr(field, "from_db_value")]
    return [field.attname for field in fields], converted


def find(model: type[Row], condition: str, values: Mapping[str, Any]) -> list[Row]:
    """Return the rows for which a condition in SQL holds, which may end in an ORDER BY.

    `values` take the places of %(name)s in it. The condition is a constant of the code's.
    """
    return _rows(model, f"{_all(model)} WHERE {condition}", values)


def change(
    model: type[Row], setting: str, condition: str, values: Mapping[str, Any], *, is_durable: bool = True
) -> list[Row]:
    """Change the rows for which a condition holds, and return them as they are then; `values` as `find` takes them.

    What is not durable does not wait for the disk: a crash of the database may undo it.
    """
    table = connection.ops.quote_name(model._meta.db_table)
    begins, source = ("", "") if is_durable else (f"WITH fast AS ({FAST}) ", " FROM fast")
    statement = f"{begins}UPDATE {table} SET {setting}{source} WHERE {condition} RETURNING {columns(model)}"  # noqa: S608
    return _rows(model, statement, values)


def refresh(row: Model) -> None:
    """Read a row's columns again. Raises DoesNotExist if it is gone."""
    found = select(type(row), {"pk": row.pk})
    if not found:
        raise type(row).DoesNotExist(f"{row} is gone")  # type: ignore[attr-defined] # Django gives each model its own
    for field in row._meta.concrete_fields:
        setattr(row, field.attname, getattr(found[0], field.attname))
    row._state.fields_cache.clear()


def fetch(statement: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Return the rows of a statement that is a constant of the code's."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def execute(statement: str, values: Mapping[str, Any]) -> int:
    """Run a statement that is a constant of the code's; return how many rows it changed."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return int(cursor.rowcount)


def literals(values: Iterable[StrEnum]) -> str:
    """Return names of ours as a list in SQL: a partial index serves only values that the statement itself contains."""
    return ", ".join(sorted(f"'{value.value}'" for value in values))


def _field(model: type[Model], name: str) -> Any:
    """Return a field by its name, `pk` for the key. Raises FieldDoesNotExist."""
    return model._meta.pk if name == "pk" else model._meta.get_field(name)


def _quoted(field: Any) -> str:
    return connection.ops.quote_name(field.column)


@cache
def _selection(model: type[Model], names: tuple[str, ...], lock: bool) -> str:
    """Return the statement that reads all columns of the rows with these values."""
    where = " AND ".join(f"{_quoted(_field(model, name))} = %s" for name in names)
    return f"{_all(model)} WHERE {where}{' FOR UPDATE' if lock else ''}"


@cache
def _all(model: type[Model]) -> str:
    """Return the statement that reads all columns of all rows."""
    return f"SELECT {columns(model)} FROM {connection.ops.quote_name(model._meta.db_table)}"  # noqa: S608


@cache
def columns(model: type[Model], prefix: str = "") -> str:
    """Return the names of all columns, as `from_row` wants their values; each after `prefix`, as `stocks.`."""
    return ", ".join(prefix + _quoted(field) for field in model._meta.concrete_fields)


def update(model: type[Model], pk: int, values: Mapping[str, Any], *, seen: Mapping[str, Any] | None = None) -> bool:
    """Change columns of one row, by the names of its fields; False where it is not as `seen` any more.

    Raises FieldDoesNotExist, and what the database raises.
    """
    fields, statement = _change(model, tuple(values), tuple(seen or ()))
    given = [*values.values(), pk, *(seen or {}).values()]
    with connection.cursor() as cursor:
        saved = (field.get_db_prep_save(value, connection) for field, value in zip(fields, given, strict=True))
        cursor.execute(statement, list(saved))
        return bool(cursor.rowcount)


def save(row: Model) -> None:
    """Write every column of a row that is there already."""
    update(type(row), row.pk, {field.name: getattr(row, field.attname) for field in _columns(type(row))})


@cache
def _change(model: type[Model], names: tuple[str, ...], seen: tuple[str, ...]) -> tuple[list[Any], str]:
    """Return the fields to fill, in the order of their places, and the statement that changes the row."""
    changed = [_field(model, name) for name in names]
    known = [_field(model, "pk"), *(_field(model, name) for name in seen)]
    setting = ", ".join(f"{_quoted(field)} = %s" for field in changed)
    where = " AND ".join(f"{_quoted(field)} = %s" for field in known)
    table = connection.ops.quote_name(model._meta.db_table)
    return [*changed, *known], f"UPDATE {table} SET {setting} WHERE {where}"  # noqa: S608

"""Reads and writes rows of the ORM's models without building SQL for each call.

For the tables in the path of a fill or an order. Values go through each field's own conversion; `make bench` measures
the time it saves.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import cache, partial
from typing import Any, TypeVar

from django.db import connection
from django.db.models import AutoField, BooleanField, CharField, IntegerField, Model, TextField

Row = TypeVar("Row", bound=Model)
# a field's conversion of a value for the database, None if the driver takes the value as it is
Conversion = Callable[[Any], Any] | None
# the commit of this transaction does not wait for the disk
FAST = "SELECT set_config('synchronous_commit', 'off', true)"


def insert(row: Row, *, is_durable: bool = True) -> Row:
    """Insert a new row with all its columns, and set its primary key. Raises DatabaseError.

    An insert that is not durable does not wait for the disk: a crash of the database within a second may undo it.
    """
    with connection.cursor() as cursor:
        cursor.execute(insert_statement(type(row), is_durable), values(row))
        return set_pk(row, cursor.fetchone()[0])


def set_pk(row: Row, pk: int) -> Row:
    """Set the primary key of a row that was just inserted; return the row."""
    row.pk = pk
    row._state.adding, row._state.db = False, connection.alias
    return row


def values(row: Model, leave_out: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return the values to write for a row, by column name, without the primary key and the columns left out."""
    return {
        column: save(getattr(row, name)) if save else getattr(row, name)
        for column, name, save in _saving(type(row), leave_out)
    }


def placeholders(model: type[Model], leave_out: frozenset[str] = frozenset()) -> tuple[str, str]:
    """Return the column names and the placeholders for `values`, as an INSERT needs them.

    Columns left out get the defaults of the database.
    """
    names = [field.column for field in _columns(model, leave_out)]
    return ", ".join(map(connection.ops.quote_name, names)), ", ".join(f"%({name})s" for name in names)


@cache
def _columns(model: type[Model], leave_out: frozenset[str] = frozenset()) -> list[Any]:
    fields = model._meta.concrete_fields
    return [field for field in fields if not field.primary_key and field.attname not in leave_out]


@cache
def _saving(model: type[Model], leave_out: frozenset[str]) -> list[tuple[str, str, Conversion]]:
    """Return each column, the attribute that it is written from, and its conversion, None if it needs none."""
    return [(field.column, field.attname, _conversion(field)) for field in _columns(model, leave_out)]


def _conversion(field: Any) -> Conversion:
    """Return a field's own conversion, or a shorter equivalent for the values that our rows have."""
    kind = field.get_internal_type()
    if type(field) in (BooleanField, CharField, TextField) or isinstance(field, AutoField):
        return None
    if isinstance(field, IntegerField):
        return partial(connection.ops.adapt_integerfield_value, internal_type=kind)
    return lambda value: field.get_db_prep_save(value, connection)


@cache
def insert_statement(model: type[Model], is_durable: bool = True) -> str:
    """Return the statement that inserts a row by its `values` and returns its primary key."""
    names, places = placeholders(model)
    table, key = connection.ops.quote_name(model._meta.db_table), _quoted(_field(model, "pk"))
    if is_durable:
        return f"INSERT INTO {table} ({names}) VALUES ({places}) RETURNING {key}"  # noqa: S608
    return f"WITH fast AS ({FAST}) INSERT INTO {table} ({names}) SELECT {places} FROM fast RETURNING {key}"  # noqa: S608


def select(model: type[Row], values: Mapping[str, Any], *, lock: bool = False) -> list[Row]:
    """Return the rows whose fields have these values, by field name; `lock` takes their row locks."""
    params = [_field(model, name).get_db_prep_save(value, connection) for name, value in values.items()]
    return _rows(model, _selection(model, tuple(values), lock), params)


def _rows(model: type[Row], statement: str, values: Any) -> list[Row]:
    """Return the rows of a statement that returns all columns of a model, in the order of `columns`."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return [from_row(model, row) for row in cursor.fetchall()]


def from_row(model: type[Row], row: Sequence[Any]) -> Row:
    """Return the model instance of a row that has all `columns`."""
    names, converted = _reading(model)
    values = list(row)
    for position, field in converted:
        values[position] = field.from_db_value(values[position], None, connection)
    return model.from_db(connection.alias, names, values)


@cache
def _reading(model: type[Model]) -> tuple[list[str], list[tuple[int, Any]]]:
    """Return a model's attribute names, and the positions of the fields that convert the driver's values."""
    fields = model._meta.concrete_fields
    converted = [(position, field) for position, field in enumerate(fields) if hasattr(field, "from_db_value")]
    return [field.attname for field in fields], converted


def find(model: type[Row], condition: str, values: Mapping[str, Any]) -> list[Row]:
    """Return the rows that match an SQL condition, which may end in an ORDER BY.

    `values` replace the placeholders %(name)s. The condition must be a constant of the code.
    """
    return _rows(model, f"{_all(model)} WHERE {condition}", values)


def update_where(
    model: type[Row], setting: str, condition: str, values: Mapping[str, Any], *, is_durable: bool = True
) -> list[Row]:
    """Update the rows that match a condition, and return them with their new values. `values` are as in `find`.

    An update that is not durable does not wait for the disk: a crash of the database may undo it.
    """
    table = connection.ops.quote_name(model._meta.db_table)
    prefix, source = ("", "") if is_durable else (f"WITH fast AS ({FAST}) ", " FROM fast")
    statement = f"{prefix}UPDATE {table} SET {setting}{source} WHERE {condition} RETURNING {columns(model)}"  # noqa: S608
    return _rows(model, statement, values)


def refresh(row: Model) -> None:
    """Read a row's columns again. Raises DoesNotExist if it was deleted."""
    rows = select(type(row), {"pk": row.pk})
    if not rows:
        raise type(row).DoesNotExist(f"{row} is gone")  # type: ignore[attr-defined] # Django gives each model its own
    for field in row._meta.concrete_fields:
        setattr(row, field.attname, getattr(rows[0], field.attname))
    row._state.fields_cache.clear()


def query(statement: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Return the rows of a statement, which must be a constant of the code."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def execute(statement: str, values: Mapping[str, Any]) -> int:
    """Run a statement, which must be a constant of the code; return how many rows it changed."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return int(cursor.rowcount)


def literals(values: Iterable[StrEnum]) -> str:
    """Return enumeration values as an SQL list: a partial index is used only for values in the statement itself."""
    return ", ".join(sorted(f"'{value.value}'" for value in values))


def _field(model: type[Model], name: str) -> Any:
    """Return a field by its name, `pk` for the primary key. Raises FieldDoesNotExist."""
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
    """Return the names of all columns in the order of `from_row`, each with `prefix`, as `stocks.`."""
    return ", ".join(prefix + _quoted(field) for field in model._meta.concrete_fields)


def update(
    model: type[Model], pk: int, values: Mapping[str, Any], *, expected: Mapping[str, Any] | None = None
) -> bool:
    """Update fields of one row, by field name; return False if its fields no longer have the values of `expected`.

    Raises FieldDoesNotExist and DatabaseError.
    """
    conversions, statement = _change(model, tuple(values), tuple(expected or ()))
    params = [*values.values(), pk, *(expected or {}).values()]
    with connection.cursor() as cursor:
        cursor.execute(
            statement, [to_db(value) if to_db else value for to_db, value in zip(conversions, params, strict=True)]
        )
        return bool(cursor.rowcount)


def save(row: Model) -> None:
    """Update all columns of an existing row."""
    update(type(row), row.pk, {field.name: getattr(row, field.attname) for field in _columns(type(row))})


@cache
def _change(model: type[Model], names: tuple[str, ...], expected: tuple[str, ...]) -> tuple[list[Conversion], str]:
    """Return the conversions in the order of the placeholders, and the statement that updates the row."""
    changed = [_field(model, name) for name in names]
    conditions = [_field(model, "pk"), *(_field(model, name) for name in expected)]
    setting = ", ".join(f"{_quoted(field)} = %s" for field in changed)
    where = " AND ".join(f"{_quoted(field)} = %s" for field in conditions)
    table = connection.ops.quote_name(model._meta.db_table)
    conversions = [_conversion(field) for field in (*changed, *conditions)]
    return conversions, f"UPDATE {table} SET {setting} WHERE {where}"  # noqa: S608

"""Choices and NULLs."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from streamproc.batch import TIMESTAMP
from streamproc.plan.arithmetic import choice, compare, unify
from streamproc.plan.casts import cast, convert
from streamproc.plan.functions.call import Builder, Call
from streamproc.plan.types import (
    BIGINT,
    BINARY,
    BOOLEAN,
    DATE,
    DOUBLE,
    FLOAT,
    INT,
    SMALLINT,
    STRING,
    TINYINT,
    Sql,
    is_fractional,
    is_orderable,
)


def _coalesce(call: Call) -> Sql:
    call.expect(1, 1000)
    values = unify(call.values)
    return Sql(f"COALESCE({', '.join(v.text for v in values)})", values[0].type)


def _two(call: Call) -> Sql:
    call.expect(2)
    return _coalesce(call)


def _nvl2(call: Call) -> Sql:
    call.expect(3)
    yes, no = unify([call[1], call[2]])
    return choice([Sql(f"({call[0].text} IS NOT NULL)", BOOLEAN)], [yes], no)


def _nullif(call: Call) -> Sql:
    call.expect(2)
    same = compare("=", *unify([call[0], call[1]]))
    return choice([same], [Sql("NULL", call[0].type)], call[0])


def _extreme(name: str) -> Builder:
    """NULLs are skipped; NaN is the largest number, as in Spark."""

    def build(call: Call) -> Sql:
        call.expect(2, 1000)
        values = unify(call.values)
        if not is_orderable(values[0].type):
            raise call.misfit()
        return Sql(f"{name}({', '.join(v.text for v in values)})", values[0].type)

    return build


def _test(template: str) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(1)
        return Sql(template.format(call[0].text), BOOLEAN)

    return build


def _isnan(call: Call) -> Sql:
    call.expect(1)
    value = call[0] if is_fractional(call[0].type) else convert(call[0], DOUBLE)
    return Sql(f"COALESCE(isnan({value.text}), false)", BOOLEAN)


def _nanvl(call: Call) -> Sql:
    call.expect(2)
    first, second = (convert(v, DOUBLE) for v in call.values)
    return choice([Sql(f"isnan({first.text})", BOOLEAN)], [second], first)


def _zero(template: str) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(1)
        return Sql(template.format(call[0].text), call[0].type)

    return build


def _cast(kind: pa.DataType) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(1)
        return cast(call[0], kind)

    return build


FUNCTIONS: Mapping[str, Builder] = {
    "coalesce": _coalesce, "ifnull": _two, "nvl": _two, "nvl2": _nvl2, "nullif": _nullif,
    "greatest": _extreme("greatest"), "least": _extreme("least"),
    "isnull": _test("({} IS NULL)"), "isnotnull": _test("({} IS NOT NULL)"), "isnan": _isnan, "nanvl": _nanvl,
    "zeroifnull": _zero("COALESCE({0}, 0)"), "nullifzero": _zero("NULLIF({0}, 0)"),
    "string": _cast(STRING), "boolean": _cast(BOOLEAN), "tinyint": _cast(TINYINT), "smallint": _cast(SMALLINT), "int": _cast(INT),
    "bigint": _cast(BIGINT), "float": _cast(FLOAT), "double": _cast(DOUBLE), "date": _cast(DATE), "timestamp": _cast(TIMESTAMP),
    "binary": _cast(BINARY),
}  # fmt: skip

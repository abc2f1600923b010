"""Choices and NULLs."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from streamproc.batch import TIMESTAMP
from streamproc.plan.arithmetic import choice, compare, number, unify
from streamproc.plan.casts import cast, convert
from streamproc.plan.faults import LocatedError
from streamproc.plan.functions.call import Builder, Call
from streamproc.plan.types import (
    BIGINT,
    BINARY,
    BOOLEAN,
    DATE,
    DOUBLE,
    FLOAT,
    INT,
    NULL,
    SMALLINT,
    STRING,
    TINYINT,
    Sql,
    is_fractional,
    is_orderable,
    spark_type,
    text_literal,
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
        if not is_orderable(values[0].type) or pa.types.is_nested(values[0].type):  # NULL inside has another order here
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


def _if(call: Call) -> Sql:
    call.expect(3)
    yes, no = unify([call[1], call[2]])
    return choice([call.compiler.condition(call.nodes[0])], [yes], no)


def _decode(call: Call) -> Sql:
    """decode(x, search, result, …[, default]): NULL finds NULL. decode(binary, charset): its text."""
    if len(call) == 2:
        return _decoded(call)
    call.expect(3, 1000)
    pairs = [(i, i + 1) for i in range(1, len(call) - 1, 2)]
    results = [call[j] for _, j in pairs] + [call[len(call) - 1] if len(call) % 2 == 0 else Sql("NULL", NULL)]
    *values, otherwise = unify(results)
    tests = [compare("IS NOT DISTINCT FROM", *unify([call[0], call[i]])) for i, _ in pairs]
    return choice(tests, values, otherwise)


def _decoded(call: Call) -> Sql:
    charset = call.string(1, "the character set").upper()
    if charset not in ("UTF-8", "UTF8"):
        raise LocatedError(f"decode(): {charset} is not supported; use UTF-8")
    return Sql(f"decode({call.text(0, BINARY)})", STRING)


def _equal_null(call: Call) -> Sql:
    call.expect(2)
    return compare("IS NOT DISTINCT FROM", *unify(call.values))


def _typeof(call: Call) -> Sql:
    call.expect(1)
    return Sql(text_literal(spark_type(call[0].type).replace(": ", ":").replace(", ", ",").lower()), STRING)


def _raise_error(call: Call) -> Sql:
    call.expect(1)
    return Sql(f"error({call.text(0, STRING)})", NULL)


def _assert_true(call: Call) -> Sql:
    call.expect(1, 2)
    said = call.text(1, STRING) if len(call) == 2 else "'assert_true() found what is not true'"
    return Sql(f'(CASE WHEN {call.text(0, BOOLEAN)} THEN NULL ELSE CAST(error({said}) AS "NULL") END)', NULL)


def _zero(template: str) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(1)
        value = convert(call[0], INT) if call[0].type == NULL else number(call[0], f"{call.name}()")
        return Sql(template.format(value.text), value.type)

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
    "if": _if, "decode": _decode, "equal_null": _equal_null, "typeof": _typeof,
    "raise_error": _raise_error, "assert_true": _assert_true,
    "zeroifnull": _zero("COALESCE({0}, 0)"), "nullifzero": _zero("NULLIF({0}, 0)"),
    "string": _cast(STRING), "boolean": _cast(BOOLEAN), "tinyint": _cast(TINYINT), "smallint": _cast(SMALLINT), "int": _cast(INT),
    "bigint": _cast(BIGINT), "float": _cast(FLOAT), "double": _cast(DOUBLE), "date": _cast(DATE), "timestamp": _cast(TIMESTAMP),
    "binary": _cast(BINARY), "decimal": _cast(pa.decimal128(10, 0)),
}  # fmt: skip

"""Typed values brought to a declared type: what Avro and Protobuf found → the column, with those that do not fit.

The rules are those of JSON: integers and floats go where they fit, decimals are rounded HALF_UP, text is read as a time,
date or decimal, times beyond the years 1 to 9999 are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.formats import scalar
from streamproc.formats.csv import value_sql
from streamproc.formats.decoder import BOM_SQL, TextDecoder
from streamproc.formats.moment import FIRST_US, LAST_US, UNIT_US, MomentFormat


@dataclass(frozen=True, slots=True)
class Fitted:
    """Values of the declared type; NULL where `misfits` is true (None: everything fits)."""

    values: pa.Array
    misfits: pa.BooleanArray | None = None
    reason: str = "out_of_range"


Fit = Callable[[pa.Array], Fitted]


def fitting(found: pa.DataType, kind: pa.DataType, moment: MomentFormat) -> Fit | None:
    """How values of an Arrow type get to be of `kind`; None where none of them could be."""
    if pa.types.is_timestamp(found) and pa.types.is_timestamp(kind):
        return _instant if (found.tz is None) == (kind.tz is None) else None
    if pa.types.is_date(found) and pa.types.is_date(kind):
        return _date
    if found == kind:
        return Fitted
    for test, make in _MAKERS:
        if test(found):
            return make(found, kind, moment)
    return None


def _from_boolean(found: pa.DataType, kind: pa.DataType, moment: MomentFormat) -> Fit | None:
    del found, moment
    return (lambda values: Fitted(values.cast(kind))) if pa.types.is_string(kind) else None


def _from_integer(found: pa.DataType, kind: pa.DataType, moment: MomentFormat) -> Fit | None:
    if pa.types.is_string(kind):
        return lambda values: Fitted(values.cast(kind))
    if pa.types.is_floating(kind):
        return lambda values: Fitted(values.cast(kind, safe=False))
    if pa.types.is_integer(kind):
        limit = 1 << (kind.bit_width - 1)
        return _within(*_clamped(found, -limit, limit - 1), lambda values: values.cast(kind))
    if pa.types.is_decimal(kind):
        digits = 20 if found == pa.uint64() else 19
        inner = _decimal(kind)
        return lambda values: inner(values.cast(pa.decimal128(digits, 0)))
    if pa.types.is_timestamp(kind) and moment.numeric:
        return _since_1970(found, kind, moment)
    return None


def _since_1970(found: pa.DataType, kind: pa.DataType, moment: MomentFormat) -> Fit:
    unit = UNIT_US[moment.written]
    low, high = _clamped(found, -(-FIRST_US // unit), LAST_US // unit)
    return _within(low, high, lambda v: pc.multiply(v.cast(pa.int64()), unit).cast(kind), "bad_timestamp")


def _clamped(found: pa.DataType, low: int, high: int) -> tuple[pa.Scalar, pa.Scalar]:
    """Bounds as scalars of an integer type, whose own they do not exceed."""
    signed = pa.types.is_signed_integer(found)
    least, most = -(1 << (found.bit_width - 1)) if signed else 0, (1 << (found.bit_width - signed)) - 1
    return pa.scalar(max(low, least), found), pa.scalar(min(high, most), found)


def _from_floating(found: pa.DataType, kind: pa.DataType, moment: MomentFormat) -> Fit | None:
    if kind == pa.float64():
        return lambda values: Fitted(values.cast(kind))
    if kind == pa.float32():
        return _narrowed
    if pa.types.is_timestamp(kind) and moment.numeric:
        unit = float(UNIT_US[moment.written])
        bound = pa.scalar(float(FIRST_US), pa.float64()), pa.scalar(float(LAST_US), pa.float64())
        within = _within(*bound, lambda v: pc.floor(v).cast(pa.int64()).cast(kind), "bad_timestamp")
        return lambda values: within(pc.multiply(values.cast(pa.float64()), unit))
    del found
    return None


def _narrowed(values: pa.Array) -> Fitted:
    """DOUBLE to FLOAT: rounded; what was finite must stay so."""
    narrow = values.cast(pa.float32(), safe=False)
    return _refusing(narrow, pc.and_(pc.is_inf(narrow), pc.is_finite(values)), "out_of_range")


def _from_decimal(found: pa.DataType, kind: pa.DataType, moment: MomentFormat) -> Fit | None:
    del found, moment
    return _decimal(kind) if pa.types.is_decimal(kind) else None


def _decimal(kind: pa.DataType) -> Fit:
    def fit(values: pa.Array) -> Fitted:
        found = values.type
        if found.scale > kind.scale:
            values = pc.round(values, ndigits=kind.scale, round_mode="half_towards_infinity")
        if kind.precision - kind.scale > found.precision - found.scale:
            return Fitted(values.cast(kind))
        limit = pa.scalar(10 ** (kind.precision - kind.scale), pa.decimal256(76, 0))
        beyond = pc.greater_equal(pc.abs(values).cast(pa.decimal256(76, found.scale)), limit.cast(pa.decimal256(76, found.scale)))
        checked = _refusing(values, beyond, "out_of_range")
        return Fitted(checked.values.cast(kind), checked.misfits)

    return fit


def _from_text(found: pa.DataType, kind: pa.DataType, moment: MomentFormat) -> Fit | None:
    if pa.types.is_binary(kind):
        return lambda values: Fitted(values.cast(kind))
    if not (pa.types.is_decimal(kind) or pa.types.is_date(kind) or (pa.types.is_timestamp(kind) and not moment.numeric)):
        return None
    del found
    decoder = text_decoder(kind, moment)
    reason = "bad_timestamp" if pa.types.is_timestamp(kind) else "bad_date" if pa.types.is_date(kind) else "wrong_type"

    def fit(values: pa.Array) -> Fitted:
        decoded = decoder.decode(values.cast(pa.binary()))
        column = decoded.rows.column(0).combine_chunks()
        if decoded.index is None:
            return Fitted(column)
        misfits = pc.is_in(pa.arange(0, len(values)), decoded.bad.column("index").combine_chunks())
        places = pc.subtract(pc.cumulative_sum(pc.invert(misfits).cast(pa.int64())), 1)
        return Fitted(column.take(pc.if_else(misfits, pa.scalar(None, pa.int64()), places)), misfits, reason)

    return fit


def text_decoder(kind: pa.DataType, moment: MomentFormat) -> TextDecoder:
    """Decoder of payloads that are one plain value each, as a field of a CSV line."""
    judge = scalar.text_judge(kind, moment)
    value = value_sql(kind, "v", moment)
    fits = f"v IS NULL OR {scalar.present_sql(kind, 'c')}"
    statement = f"SELECT c, CASE WHEN {fits} THEN true ELSE false END AS fits FROM (SELECT v, {value} AS c FROM ({BOM_SQL}))"
    return TextDecoder(pa.schema([("c", kind)]), lambda text: [judge(text)], (statement,), moment.time_zone)


def _from_bytes(found: pa.DataType, kind: pa.DataType, moment: MomentFormat) -> Fit | None:
    del found, moment
    return (lambda values: Fitted(values.cast(kind))) if pa.types.is_binary(kind) else None


def _instant(values: pa.Array) -> Fitted:
    kind = values.type
    low, high = pa.scalar(FIRST_US, pa.int64()).cast(kind), pa.scalar(LAST_US, pa.int64()).cast(kind)
    return _within(low, high, lambda v: v, "bad_timestamp")(values)


def _date(values: pa.Array) -> Fitted:
    low, high = (pa.scalar(us // 86_400_000_000, pa.int32()).cast(values.type) for us in (FIRST_US, LAST_US))
    return _within(low, high, lambda v: v, "bad_date")(values)


def _within(low: pa.Scalar, high: pa.Scalar, convert: Callable[[pa.Array], pa.Array], reason: str = "out_of_range") -> Fit:
    def fit(values: pa.Array) -> Fitted:
        inside = pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))
        checked = _refusing(values, pc.invert(inside), reason)
        return Fitted(convert(checked.values), checked.misfits, reason)

    return fit


def _refusing(values: pa.Array, misfits: pa.BooleanArray, reason: str) -> Fitted:
    if not pc.any(misfits).as_py():
        return Fitted(values)
    misfits = misfits.fill_null(False)
    return Fitted(pc.if_else(misfits, pa.scalar(None, values.type), values), misfits, reason)


_MAKERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType, pa.DataType, MomentFormat], Fit | None]], ...] = (
    (pa.types.is_boolean, _from_boolean),
    (pa.types.is_integer, _from_integer),
    (pa.types.is_floating, _from_floating),
    (pa.types.is_decimal, _from_decimal),
    (pa.types.is_string, _from_text),
    (pa.types.is_binary, _from_bytes),
)
